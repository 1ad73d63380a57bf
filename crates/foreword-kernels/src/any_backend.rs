//! A backend that is chosen when the program runs: the processor, or a device of candle.

use candle_core::Tensor;

use crate::backend::{
    Activation, Attended, Attention, AttentionGradient, Backend, Direction, Head, HeadOf, Norm, RotaryAngles,
    Token,
};
use crate::candle::{Candle, DeviceMatrix, DeviceRows};
use crate::cpu::Cpu;
use crate::dtype::Dtype;
use crate::rows::{RowBlock, Rows};
use crate::weights::Weights;

/// One of two backends. Values stay with the one that made them.
///
/// # Panics
/// Every operation, if it is passed a value of the other backend.
#[derive(Debug)]
pub enum AnyBackend {
    /// The processor.
    Cpu(Cpu),
    /// A device.
    Device(Candle),
}

/// A value in the memory of the backend that made it.
#[derive(Clone, Debug)]
pub enum HostOrDevice<H, D> {
    /// In the processor's memory.
    Host(H),
    /// In a device's memory.
    Device(D),
}

/// Rows of either backend.
pub type AnyRows = HostOrDevice<Rows<f32>, DeviceRows>;

impl RowBlock for AnyRows {
    fn n_rows(&self) -> usize {
        match self {
            Self::Host(rows) => rows.n_rows(),
            Self::Device(rows) => rows.n_rows(),
        }
    }
    fn width(&self) -> usize {
        match self {
            Self::Host(rows) => rows.width(),
            Self::Device(rows) => rows.width(),
        }
    }
}

/// Unwraps and wraps values of one side.
trait Side {
    type Value<H, D>;
    fn wrap<H, D>(value: Self::Value<H, D>) -> HostOrDevice<H, D>;
    fn unwrap<H, D>(value: HostOrDevice<H, D>) -> Self::Value<H, D>;
    fn get<H, D>(value: &HostOrDevice<H, D>) -> &Self::Value<H, D>;
    fn get_mut<H, D>(value: &mut HostOrDevice<H, D>) -> &mut Self::Value<H, D>;
}

macro_rules! side {
    ($side:ident, $variant:ident, $value:ident) => {
        struct $side;

        impl Side for $side {
            type Value<H, D> = $value;
            fn wrap<H, D>(value: $value) -> HostOrDevice<H, D> {
                HostOrDevice::$variant(value)
            }
            fn unwrap<H, D>(value: HostOrDevice<H, D>) -> $value {
                if let HostOrDevice::$variant(value) = value { value } else { other_backend() }
            }
            fn get<H, D>(value: &HostOrDevice<H, D>) -> &$value {
                if let HostOrDevice::$variant(value) = value { value } else { other_backend() }
            }
            fn get_mut<H, D>(value: &mut HostOrDevice<H, D>) -> &mut $value {
                if let HostOrDevice::$variant(value) = value { value } else { other_backend() }
            }
        }
    };
}
side!(OnHost, Host, H);
side!(OnDevice, Device, D);

fn other_backend() -> ! {
    unreachable!("a value of another backend")
}

/// Evaluates `$call` with the backend `$b` and its [`Side`], `S`.
macro_rules! run {
    ($self:ident, |$b:ident| $call:expr) => {
        match $self {
            AnyBackend::Cpu($b) => {
                use OnHost as S;
                $call
            }
            AnyBackend::Device($b) => {
                use OnDevice as S;
                $call
            }
        }
    };
}

/// An argument or a result on its way to or from the backend of side `S`.
macro_rules! convert {
    (same, $value:expr) => {
        $value
    };
    (map_get, $value:expr) => {
        $value.map(S::get)
    };
    (map_unwrap, $value:expr) => {
        $value.map(S::unwrap)
    };
    (norm, $value:expr) => {
        &norm_of($value, S::get)
    };
    (head, $value:expr) => {
        head_of($value, S::get, S::get)
    };
    ($function:ident, $value:expr) => {
        S::$function($value)
    };
}

/// Methods that convert their arguments, call the backend's own, and convert the result.
macro_rules! delegate {
    ($(fn $name:ident($($arg:ident: $type:ty => $in:ident),*) -> $result:ty => $out:ident;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result {
            run!(self, |b| convert!($out, b.$name($(convert!($in, $arg)),*)))
        })*
    };
}

fn norm_of<V, W: Clone>(norm: &Norm<V>, get: impl Fn(&V) -> &W) -> Norm<W> {
    Norm { kind: norm.kind, gain: get(&norm.gain).clone(), bias: norm.bias.as_ref().map(|b| get(b).clone()) }
}

fn head_of<'a, M, V, N, W>(
    head: Head<'a, M, V>,
    matrix: impl Fn(&'a M) -> &'a N,
    vector: impl Fn(&'a V) -> &'a W,
) -> Head<'a, N, W> {
    Head { weight: matrix(head.weight), bias: head.bias.map(vector), soft_cap: head.soft_cap }
}

fn with_attention<R, T>(
    attention: &Attention<'_, AnyRows>,
    get: impl Fn(&AnyRows) -> &R,
    call: impl FnOnce(&Attention<'_, R>) -> T,
) -> T {
    let context: Vec<&R> = attention.context.iter().map(|block| get(block)).collect();
    call(&Attention {
        shape: attention.shape,
        slopes: attention.slopes,
        forest: attention.forest,
        query_rows: attention.query_rows,
        queries: get(attention.queries),
        key_values: get(attention.key_values),
        context: &context,
    })
}

fn gradient_of<'a, R>(
    gradient: AttentionGradient<'a, AnyRows>,
    get_mut: impl Fn(&'a mut AnyRows) -> &'a mut R,
) -> AttentionGradient<'a, R> {
    AttentionGradient {
        queries: gradient.queries.map(&get_mut),
        key_values: gradient.key_values.map(&get_mut),
        context: gradient.context.into_iter().map(|block| block.map(&get_mut)).collect(),
    }
}

impl Backend for AnyBackend {
    type Element = f32;
    type Rows = AnyRows;
    type Matrix = HostOrDevice<<Cpu as Backend>::Matrix, DeviceMatrix>;
    type Vector = HostOrDevice<Vec<f32>, Tensor>;

    fn product_dtype(&self, stored: Dtype) -> Dtype {
        match self {
            Self::Cpu(b) => b.product_dtype(stored),
            Self::Device(b) => b.product_dtype(stored),
        }
    }
    fn attend(&self, attention: &Attention<'_, AnyRows>) -> Attended<AnyRows> {
        run!(self, |b| {
            let Attended { output, log_sums } = with_attention(attention, S::get, |a| b.attend(a));
            Attended { output: S::wrap(output), log_sums: S::wrap(log_sums) }
        })
    }
    fn attend_gradient(
        &self,
        attention: &Attention<'_, AnyRows>,
        attended: &Attended<AnyRows>,
        d_output: &AnyRows,
        gradient: AttentionGradient<'_, AnyRows>,
    ) {
        run!(self, |b| {
            let (output, log_sums) = (S::get(&attended.output), S::get(&attended.log_sums));
            let attended = Attended { output: output.clone(), log_sums: log_sums.clone() };
            let gradient = gradient_of(gradient, S::get_mut);
            with_attention(attention, S::get, |a| {
                b.attend_gradient(a, &attended, S::get(d_output), gradient);
            });
        });
    }

    delegate! {
        fn matrix(blocks: Vec<Weights> => same) -> Self::Matrix => wrap;
        fn vector(values: &[f32] => same) -> Self::Vector => wrap;
        fn rows(values: Vec<f32> => same, width: usize => same) -> AnyRows => wrap;
        fn zeros(n_rows: usize => same, width: usize => same) -> AnyRows => wrap;
        fn values(rows: &AnyRows => get) -> Vec<f32> => same;
        fn embed(table: &Self::Matrix => get, tokens: &[Token] => same) -> AnyRows => wrap;
        fn select(x: &AnyRows => get, indices: &[usize] => same) -> AnyRows => wrap;
        fn assign(into: &mut AnyRows => get_mut, indices: &[usize] => same, source: &AnyRows => get) -> () => same;
        fn scatter_add(into: &mut AnyRows => get_mut, indices: &[usize] => same, source: &AnyRows => get) -> () => same;
        fn add(into: &mut AnyRows => get_mut, x: &AnyRows => get) -> () => same;
        fn scale(x: &mut AnyRows => get_mut, factor: f32 => same) -> () => same;
        fn linear(
            x: &AnyRows => get, weight: &Self::Matrix => get, bias: Option<&Self::Vector> => map_get
        ) -> AnyRows => wrap;
        fn linear_gradient(
            dy: &AnyRows => get, weight: &Self::Matrix => get, dx: Option<AnyRows> => map_unwrap
        ) -> AnyRows => wrap;
        fn norm(x: &AnyRows => get, norm: &Norm<Self::Vector> => norm) -> AnyRows => wrap;
        fn norm_gradient(
            x: &AnyRows => get, norm: &Norm<Self::Vector> => norm, dy: &AnyRows => get, dx: &mut AnyRows => get_mut
        ) -> () => same;
        fn norm_heads(
            x: &AnyRows => get, n_heads: usize => same, head_width: usize => same, norm: &Norm<Self::Vector> => norm
        ) -> AnyRows => wrap;
        fn norm_heads_gradient(
            x: &AnyRows => get, n_heads: usize => same, head_width: usize => same, norm: &Norm<Self::Vector> => norm,
            dy: AnyRows => unwrap
        ) -> AnyRows => wrap;
        fn rotate(
            x: &mut AnyRows => get_mut, n_heads: usize => same, head_width: usize => same, angles: &RotaryAngles => same,
            direction: Direction => same
        ) -> () => same;
        fn activate(x: &AnyRows => get, activation: Activation => same) -> AnyRows => wrap;
        fn activate_gradient(x: &AnyRows => get, activation: Activation => same, dy: &AnyRows => get) -> AnyRows => wrap;
        fn logits_at(
            x: &AnyRows => get, head: HeadOf<'_, Self> => head, pairs: &[(usize, Token)] => same
        ) -> Vec<f32> => same;
        fn logits_at_gradient(
            head: HeadOf<'_, Self> => head, pairs: &[(usize, Token)] => same, logits: &[f32] => same, d: &[f32] => same,
            dx: &mut AnyRows => get_mut
        ) -> () => same;
        fn log_sum_exp(x: &AnyRows => get, head: HeadOf<'_, Self> => head) -> Vec<f32> => same;
        fn log_sum_exp_gradient(
            x: &AnyRows => get, head: HeadOf<'_, Self> => head, log_sums: &[f32] => same, d: &[f32] => same,
            dx: &mut AnyRows => get_mut
        ) -> () => same;
    }
}
