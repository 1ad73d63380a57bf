//! The golden numbers of testdata/, and the models that they belong to.

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Model, ModelFiles};

pub(crate) use foreword_testkit::golden::{Golden, distance, models, tiny_models};
pub(crate) use foreword_testkit::{json, root};

pub(crate) fn load<B: Backend>(path: &str, backend: B) -> Model<B> {
    Model::load(&ModelFiles::directory(&root().join(path)).unwrap(), backend).unwrap()
}

/// The model of golden numbers; nothing where its files are not here.
pub(crate) trait Files {
    fn model<B: Backend>(&self, backend: B) -> Option<Model<B>>;
}

impl Files for Golden {
    fn model<B: Backend>(&self, backend: B) -> Option<Model<B>> {
        self.directory()?;
        Some(load(self.json["model"].as_str().unwrap(), backend))
    }
}
