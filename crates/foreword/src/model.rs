//! A frozen model, opened by name on a device.

use std::ops::Deref;
use std::sync::Arc;

use anyhow::Context as _;
use foreword_backbone::{BackboneError, ModelFiles};
use foreword_kernels::Backend as _;
use foreword_kernels::ComputeDtype;

use crate::PromptDirectory;
use crate::device::{self, Device, Machine};
use crate::display::count;
use crate::error::Result;
use crate::notice::Observer;
use crate::source;

/// The resources that a model may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The device.
    pub device: Device,
    /// CPU threads; `None`: one for each core.
    pub threads: Option<usize>,
    /// The number format of products with frozen matrices.
    pub dtype: ComputeDtype,
    /// Maximum number of tokens computed at a time; `None`: automatic.
    pub micro_batch_tokens: Option<usize>,
    /// Keys of the model's configuration to ignore, if it has them: notes that are not understood and change nothing.
    pub ignored_config_keys: Vec<String>,
    /// Compute on the calling thread too, which must then be the only thread that uses the model.
    pub on_this_thread: bool,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            threads: None,
            dtype: ComputeDtype::Auto,
            micro_batch_tokens: None,
            ignored_config_keys: Vec::new(),
            on_this_thread: false,
        }
    }
}

impl Resources {
    /// The same for the model of a prompt, which may have been trained with some keys ignored.
    #[must_use]
    pub fn with_ignored_keys_of(&self, prompt: Option<&PromptDirectory>) -> Self {
        let passport = prompt.and_then(|directory| directory.passport.as_ref());
        let recorded = passport.map_or(&[][..], |passport| &passport.base_model.ignored_config_keys);
        let mut resources = self.clone();
        let new = recorded.iter().filter(|key| !self.ignored_config_keys.contains(key));
        resources.ignored_config_keys.extend(new.cloned());
        resources
    }
}

/// A way to load a model.
type Load = fn(&ModelFiles, Machine) -> Result<foreword_backbone::Model<Machine>, BackboneError>;

/// A frozen model with its tokenizer, ready to compute. Clones share it.
///
/// ```
/// let model = foreword::Model::open("foreword-tiny")?;
/// assert_eq!(model.backbone.spec().hidden, 192);
/// # Ok::<(), foreword::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    name: String,
    inner: Arc<foreword_backbone::Model<Machine>>,
}

impl Deref for Model {
    type Target = foreword_backbone::Model<Machine>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Model {
    /// Opens the model of this name: `foreword-tiny` (bundled), a directory, a `.gguf` file, or `org/name` on the Hugging
    /// Face hub, which is downloaded to the standard cache.
    ///
    /// # Errors
    /// If there is no such model, it can't be downloaded, or it is not supported.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_with(name, &Resources::default(), &())
    }

    /// As [`Model::open`], with resources and an observer of notices and of the download.
    ///
    /// # Errors
    /// As [`Model::open`], and if the device can't be used.
    pub fn open_with(name: &str, resources: &Resources, observer: &dyn Observer) -> Result<Self> {
        let files = source::files(name, observer)?;
        let files = source::ignoring(files, name, &resources.ignored_config_keys)?;
        Self::load(&files, name, resources, observer)
    }

    /// As [`Model::open_with`], for a model that no prompt will be checked against: what a check compares is not computed yet.
    pub(crate) fn open_alone(name: &str, resources: &Resources, observer: &dyn Observer) -> Result<Self> {
        let files = source::files(name, observer)?.ignoring(&resources.ignored_config_keys);
        Self::load_by(foreword_backbone::Model::load, &files, name, resources, observer)
    }

    /// Loads a model from its files, whose configuration is taken as it is.
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn load(
        files: &ModelFiles,
        name: &str,
        resources: &Resources,
        observer: &dyn Observer,
    ) -> Result<Self> {
        Self::load_by(foreword_backbone::Model::load_identified, files, name, resources, observer)
    }

    fn load_by(
        load: Load,
        files: &ModelFiles,
        name: &str,
        resources: &Resources,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let backend = device::open(resources)?;
        if !files.ignored_config_keys.is_empty() {
            let keys = files.ignored_config_keys.join(", ");
            observer.tell("ignored", format!("{keys} in the configuration of {name}"));
        }
        let model = load(files, backend).with_context(|| format!("the model {name}"))?;
        for notice in &model.notices {
            observer.warn(&notice.to_string());
        }
        Ok(Self { name: name.to_owned(), inner: Arc::new(model) })
    }

    /// The name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Describes its device, for verbose output.
    pub(crate) fn computing(&self, micro_batch_tokens: usize) -> (&'static str, String) {
        let backend = self.backbone.backend();
        let machine = device::in_words(backend);
        let budget = count(micro_batch_tokens as u64);
        let dtype = backend.product_dtype(self.backbone.embeddings().table().dtype()).name();
        ("computing", format!("{machine}, products in {dtype}, up to {budget} tokens at a time"))
    }
}
