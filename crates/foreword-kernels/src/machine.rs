//! A machine that is chosen when the program runs: the processor, or a device of candle.

use candle_core::Tensor;

use crate::backend::{
    Activation, Attended, Attention, AttentionGradient, Backend, Direction, Head, HeadOf, Norm, RotaryAngles,
    Token,
};
use crate::candle::{Candle, DeviceMatrix, DeviceRows};
use crate::cpu::Cpu;
use crate::rows::{RowBlock, Rows};
use crate::weights::{Dtype, Weights};

/// One of two machines. What one of them made stays with it.
///
/// # Panics
/// Every operation that is given what another machine made.
#[derive(Debug)]
pub enum Machine {
    /// The processor.
    Cpu(Cpu),
    /// A device.
    Device(Candle),
}

/// What a machine made, where that machine keeps it.
#[derive(Clone, Debug)]
pub enum Kept<H, D> {
    /// In the processor's memory.
    Host(H),
    /// In a device's.
    Device(D),
}

impl<H, D> Kept<H, D> {
    fn host(&self) -> &H {
        match self {
            Self::Host(it) => it,
            Self::Device(_) => elsewhere(),
        }
    }
    fn into_host(self) -> H {
        match self {
            Self::Host(it) => it,
            Self::Device(_) => elsewhere(),
        }
    }
    fn into_device(self) -> D {
        match self {
            Self::Device(it) => it,
            Self::Host(_) => elsewhere(),
        }
    }
    fn host_mut(&mut self) -> &mut H {
        match self {
            Self::Host(it) => it,
            Self::Device(_) => elsewhere(),
        }
    }
    fn device(&self) -> &D {
        match self {
            Self::Device(it) => it,
            Self::Host(_) => elsewhere(),
        }
    }
    fn device_mut(&mut self) -> &mut D {
        match self {
            Self::Device(it) => it,
            Self::Host(_) => elsewhere(),
        }
    }
}

fn elsewhere() -> ! {
    unreachable!("what another machine made was given to this one")
}

/// Rows of either machine.
pub type MachineRows = Kept<Rows<f32>, DeviceRows>;

impl RowBlock for MachineRows {
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

/// A norm with its vectors where they lie.
fn norm_of<V, W: Clone>(norm: &Norm<V>, of: impl Fn(&V) -> &W) -> Norm<W> {
    Norm { kind: norm.kind, gain: of(&norm.gain).clone(), bias: norm.bias.as_ref().map(|b| of(b).clone()) }
}

/// A head whose weights are where they lie.
fn head_of<'a, M, V, N, W>(
    head: Head<'a, M, V>,
    of: impl Fn(&'a M) -> &'a N,
    vector: impl Fn(&'a V) -> &'a W,
) -> Head<'a, N, W> {
    Head { weight: of(head.weight), bias: head.bias.map(vector), soft_cap: head.soft_cap }
}

/// Runs `call` with an attention whose rows are where they lie.
fn attention_of<R, T>(
    attention: &Attention<'_, MachineRows>,
    of: impl Fn(&MachineRows) -> &R,
    call: impl FnOnce(&Attention<'_, R>) -> T,
) -> T {
    let context: Vec<&R> = attention.context.iter().map(|block| of(block)).collect();
    call(&Attention {
        shape: attention.shape,
        slopes: attention.slopes,
        forest: attention.forest,
        asking: attention.asking,
        queries: of(attention.queries),
        own: of(attention.own),
        context: &context,
    })
}

fn attended_of<R: Clone>(attended: &Attended<MachineRows>, of: impl Fn(&MachineRows) -> &R) -> Attended<R> {
    Attended { output: of(&attended.output).clone(), log_sums: of(&attended.log_sums).clone() }
}

fn gradient_of<'a, R>(
    gradient: AttentionGradient<'a, MachineRows>,
    of: impl Fn(&'a mut MachineRows) -> &'a mut R,
) -> AttentionGradient<'a, R> {
    AttentionGradient {
        queries: gradient.queries.map(&of),
        own: gradient.own.map(&of),
        context: gradient.context.into_iter().map(|block| block.map(&of)).collect(),
    }
}

impl Backend for Machine {
    type Element = f32;
    type Rows = MachineRows;
    type Matrix = Kept<<Cpu as Backend>::Matrix, DeviceMatrix>;
    type Vector = Kept<Vec<f32>, Tensor>;

    fn matrix(&self, blocks: Vec<Weights>) -> Self::Matrix {
        match self {
            Self::Cpu(b) => Kept::Host(b.matrix(blocks)),
            Self::Device(b) => Kept::Device(b.matrix(blocks)),
        }
    }
    fn product_dtype(&self, stored: Dtype) -> Dtype {
        match self {
            Self::Cpu(b) => b.product_dtype(stored),
            Self::Device(b) => b.product_dtype(stored),
        }
    }
    fn vector(&self, values: &[f32]) -> Self::Vector {
        match self {
            Self::Cpu(b) => Kept::Host(b.vector(values)),
            Self::Device(b) => Kept::Device(b.vector(values)),
        }
    }
    fn rows(&self, values: Vec<f32>, width: usize) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.rows(values, width)),
            Self::Device(b) => Kept::Device(b.rows(values, width)),
        }
    }
    fn zeros(&self, n_rows: usize, width: usize) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.zeros(n_rows, width)),
            Self::Device(b) => Kept::Device(b.zeros(n_rows, width)),
        }
    }
    fn values(&self, rows: &MachineRows) -> Vec<f32> {
        match self {
            Self::Cpu(b) => b.values(rows.host()),
            Self::Device(b) => b.values(rows.device()),
        }
    }
    fn embed(&self, table: &Self::Matrix, tokens: &[Token]) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.embed(table.host(), tokens)),
            Self::Device(b) => Kept::Device(b.embed(table.device(), tokens)),
        }
    }
    fn select(&self, x: &MachineRows, indices: &[usize]) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.select(x.host(), indices)),
            Self::Device(b) => Kept::Device(b.select(x.device(), indices)),
        }
    }
    fn assign(&self, into: &mut MachineRows, indices: &[usize], source: &MachineRows) {
        match self {
            Self::Cpu(b) => b.assign(into.host_mut(), indices, source.host()),
            Self::Device(b) => b.assign(into.device_mut(), indices, source.device()),
        }
    }
    fn scatter_add(&self, into: &mut MachineRows, indices: &[usize], source: &MachineRows) {
        match self {
            Self::Cpu(b) => b.scatter_add(into.host_mut(), indices, source.host()),
            Self::Device(b) => b.scatter_add(into.device_mut(), indices, source.device()),
        }
    }
    fn add(&self, into: &mut MachineRows, x: &MachineRows) {
        match self {
            Self::Cpu(b) => b.add(into.host_mut(), x.host()),
            Self::Device(b) => b.add(into.device_mut(), x.device()),
        }
    }
    fn scale(&self, x: &mut MachineRows, factor: f32) {
        match self {
            Self::Cpu(b) => b.scale(x.host_mut(), factor),
            Self::Device(b) => b.scale(x.device_mut(), factor),
        }
    }
    fn linear(&self, x: &MachineRows, weight: &Self::Matrix, bias: Option<&Self::Vector>) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.linear(x.host(), weight.host(), bias.map(Kept::host))),
            Self::Device(b) => Kept::Device(b.linear(x.device(), weight.device(), bias.map(Kept::device))),
        }
    }
    fn linear_gradient(
        &self,
        dy: &MachineRows,
        weight: &Self::Matrix,
        dx: Option<MachineRows>,
    ) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.linear_gradient(dy.host(), weight.host(), dx.map(Kept::into_host))),
            Self::Device(b) => {
                Kept::Device(b.linear_gradient(dy.device(), weight.device(), dx.map(Kept::into_device)))
            }
        }
    }
    fn norm(&self, x: &MachineRows, norm: &Norm<Self::Vector>) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.norm(x.host(), &norm_of(norm, Kept::host))),
            Self::Device(b) => Kept::Device(b.norm(x.device(), &norm_of(norm, Kept::device))),
        }
    }
    fn norm_gradient(
        &self,
        x: &MachineRows,
        norm: &Norm<Self::Vector>,
        dy: &MachineRows,
        dx: &mut MachineRows,
    ) {
        match self {
            Self::Cpu(b) => {
                b.norm_gradient(x.host(), &norm_of(norm, Kept::host), dy.host(), dx.host_mut());
            }
            Self::Device(b) => {
                b.norm_gradient(x.device(), &norm_of(norm, Kept::device), dy.device(), dx.device_mut());
            }
        }
    }
    fn norm_heads(
        &self,
        x: &MachineRows,
        n_heads: usize,
        head_width: usize,
        norm: &Norm<Self::Vector>,
    ) -> MachineRows {
        match self {
            Self::Cpu(b) => {
                Kept::Host(b.norm_heads(x.host(), n_heads, head_width, &norm_of(norm, Kept::host)))
            }
            Self::Device(b) => {
                Kept::Device(b.norm_heads(x.device(), n_heads, head_width, &norm_of(norm, Kept::device)))
            }
        }
    }
    fn norm_heads_gradient(
        &self,
        x: &MachineRows,
        n_heads: usize,
        head_width: usize,
        norm: &Norm<Self::Vector>,
        dy: MachineRows,
    ) -> MachineRows {
        match (self, dy) {
            (Self::Cpu(b), Kept::Host(dy)) => {
                let norm = norm_of(norm, Kept::host);
                Kept::Host(b.norm_heads_gradient(x.host(), n_heads, head_width, &norm, dy))
            }
            (Self::Device(b), Kept::Device(dy)) => {
                let norm = norm_of(norm, Kept::device);
                Kept::Device(b.norm_heads_gradient(x.device(), n_heads, head_width, &norm, dy))
            }
            _ => elsewhere(),
        }
    }
    fn rotate(
        &self,
        x: &mut MachineRows,
        n_heads: usize,
        head_width: usize,
        angles: &RotaryAngles,
        direction: Direction,
    ) {
        match self {
            Self::Cpu(b) => b.rotate(x.host_mut(), n_heads, head_width, angles, direction),
            Self::Device(b) => b.rotate(x.device_mut(), n_heads, head_width, angles, direction),
        }
    }
    fn attend(&self, attention: &Attention<'_, MachineRows>) -> Attended<MachineRows> {
        match self {
            Self::Cpu(b) => {
                let Attended { output, log_sums } =
                    attention_of(attention, Kept::host, |attention| b.attend(attention));
                Attended { output: Kept::Host(output), log_sums: Kept::Host(log_sums) }
            }
            Self::Device(b) => {
                let Attended { output, log_sums } =
                    attention_of(attention, Kept::device, |attention| b.attend(attention));
                Attended { output: Kept::Device(output), log_sums: Kept::Device(log_sums) }
            }
        }
    }
    fn attend_gradient(
        &self,
        attention: &Attention<'_, MachineRows>,
        attended: &Attended<MachineRows>,
        d_output: &MachineRows,
        gradient: AttentionGradient<'_, MachineRows>,
    ) {
        match self {
            Self::Cpu(b) => {
                let attended = attended_of(attended, Kept::host);
                let gradient = gradient_of(gradient, Kept::host_mut);
                attention_of(attention, Kept::host, |attention| {
                    b.attend_gradient(attention, &attended, d_output.host(), gradient);
                });
            }
            Self::Device(b) => {
                let attended = attended_of(attended, Kept::device);
                let gradient = gradient_of(gradient, Kept::device_mut);
                attention_of(attention, Kept::device, |attention| {
                    b.attend_gradient(attention, &attended, d_output.device(), gradient);
                });
            }
        }
    }
    fn activate(&self, x: &MachineRows, activation: Activation) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.activate(x.host(), activation)),
            Self::Device(b) => Kept::Device(b.activate(x.device(), activation)),
        }
    }
    fn activate_gradient(&self, x: &MachineRows, activation: Activation, dy: &MachineRows) -> MachineRows {
        match self {
            Self::Cpu(b) => Kept::Host(b.activate_gradient(x.host(), activation, dy.host())),
            Self::Device(b) => Kept::Device(b.activate_gradient(x.device(), activation, dy.device())),
        }
    }
    fn logits_at(&self, x: &MachineRows, head: HeadOf<'_, Self>, pairs: &[(usize, Token)]) -> Vec<f32> {
        match self {
            Self::Cpu(b) => b.logits_at(x.host(), head_of(head, Kept::host, Kept::host), pairs),
            Self::Device(b) => b.logits_at(x.device(), head_of(head, Kept::device, Kept::device), pairs),
        }
    }
    fn logits_at_gradient(
        &self,
        head: HeadOf<'_, Self>,
        pairs: &[(usize, Token)],
        logits: &[f32],
        d: &[f32],
        dx: &mut MachineRows,
    ) {
        match self {
            Self::Cpu(b) => {
                let head = head_of(head, Kept::host, Kept::host);
                b.logits_at_gradient(head, pairs, logits, d, dx.host_mut());
            }
            Self::Device(b) => {
                let head = head_of(head, Kept::device, Kept::device);
                b.logits_at_gradient(head, pairs, logits, d, dx.device_mut());
            }
        }
    }
    fn log_sum_exp(&self, x: &MachineRows, head: HeadOf<'_, Self>) -> Vec<f32> {
        match self {
            Self::Cpu(b) => b.log_sum_exp(x.host(), head_of(head, Kept::host, Kept::host)),
            Self::Device(b) => b.log_sum_exp(x.device(), head_of(head, Kept::device, Kept::device)),
        }
    }
    fn log_sum_exp_gradient(
        &self,
        x: &MachineRows,
        head: HeadOf<'_, Self>,
        log_sums: &[f32],
        d: &[f32],
        dx: &mut MachineRows,
    ) {
        match self {
            Self::Cpu(b) => {
                let head = head_of(head, Kept::host, Kept::host);
                b.log_sum_exp_gradient(x.host(), head, log_sums, d, dx.host_mut());
            }
            Self::Device(b) => {
                let head = head_of(head, Kept::device, Kept::device);
                b.log_sum_exp_gradient(x.device(), head, log_sums, d, dx.device_mut());
            }
        }
    }
}
