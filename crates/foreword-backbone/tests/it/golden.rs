//! The golden numbers of testdata/, and the models that they belong to.

use foreword_backbone::{Backbone, ModelFiles};
use foreword_kernels::Backend;

pub(crate) use foreword_testkit::golden::{Golden, models, tiny_models};
pub(crate) use foreword_testkit::root;

/// The model of golden numbers; nothing where its files are not here.
pub(crate) trait Files {
    fn files(&self) -> Option<ModelFiles>;
    fn backbone<B: Backend>(&self, backend: B) -> Option<Backbone<B>>;
}

impl Files for Golden {
    fn files(&self) -> Option<ModelFiles> {
        Some(ModelFiles::directory(&self.directory()?).unwrap())
    }

    fn backbone<B: Backend>(&self, backend: B) -> Option<Backbone<B>> {
        Some(Backbone::load(&self.files()?, backend).unwrap())
    }
}
