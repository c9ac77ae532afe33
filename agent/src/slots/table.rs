//! The hot swap: which loaded release answers for which model. A swap replaces one pointer; a request holds
//! the release that it began with until it is answered, so none fails and none is answered by half of each.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use inference::{Model, Tensor};
use protocol::{ModelName, ReleaseRef};
use release::Manifest;

use super::pace::Pace;

/// A release in memory, ready to answer.
#[derive(Debug)]
pub struct Loaded {
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub release: ReleaseRef,
    /// Name of the variant that was chosen for this device.
    pub variant: String,
    /// Its signed manifest.
    pub manifest: Arc<Manifest>,
    /// The runtime's model, warm.
    pub runtime: Model,
    /// The release's reference profile, as its blob holds it.
    pub reference: Arc<Vec<u8>>,
    /// How long its inferences take.
    pub pace: Pace,
}

impl Loaded {
    /// Rows of a batch; 1 for a model without batches.
    pub fn rows(&self, inputs: &[Tensor]) -> usize {
        let batched = self.runtime.spec().inputs.iter().find(|spec| spec.is_batched());
        let input = batched.and_then(|spec| inputs.iter().find(|input| input.name() == spec.name));
        input.and_then(|input| input.shape().first().copied()).unwrap_or(1)
    }
}

/// All models that serve, and candidates that run beside them. Cheap to clone; all clones see the same table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    slots: Arc<RwLock<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    active: BTreeMap<ModelName, Arc<Loaded>>,
    shadow: BTreeMap<ModelName, Arc<Loaded>>,
    absent: BTreeMap<ModelName, String>,
    changes: u64,
}

impl Table {
    /// The release that answers now. Hold it for the whole request.
    pub fn active(&self, model: &ModelName) -> Option<Arc<Loaded>> {
        self.read(|slots| slots.active.get(model).cloned())
    }

    /// The candidate that runs beside the active release and never answers.
    pub fn shadow(&self, model: &ModelName) -> Option<Arc<Loaded>> {
        self.read(|slots| slots.shadow.get(model).cloned())
    }

    /// All candidates that run beside.
    pub fn all_shadow(&self) -> Vec<Arc<Loaded>> {
        self.read(|slots| slots.shadow.values().cloned().collect())
    }

    /// All releases that answer now, by model.
    pub fn all_active(&self) -> Vec<Arc<Loaded>> {
        self.read(|slots| slots.active.values().cloned().collect())
    }

    /// From the next request on, `loaded` answers. Returns the one that answered before; it is freed when the
    /// last request in flight lets go of it.
    pub fn swap(&self, loaded: Arc<Loaded>) -> Option<Arc<Loaded>> {
        self.write(|slots| {
            slots.shadow.remove(&loaded.model);
            slots.absent.remove(&loaded.model);
            slots.active.insert(loaded.model.clone(), loaded)
        })
    }

    /// Nothing answers for `model` any more.
    pub fn unload(&self, model: &ModelName) {
        self.write(|slots| {
            slots.absent.remove(model);
            slots.active.remove(model)
        });
    }

    /// Nothing answers for `model` now though a release of it is here; `why` is said to who asks.
    pub fn set_absent(&self, model: &ModelName, why: String) {
        self.write(|slots| {
            slots.active.remove(model);
            slots.absent.insert(model.clone(), why)
        });
    }

    /// Why `model` does not answer though a release of it is here.
    pub fn absent(&self, model: &ModelName) -> Option<String> {
        self.read(|slots| slots.absent.get(model).cloned())
    }

    /// All models that do not answer though a release of them is here, and why.
    pub fn all_absent(&self) -> Vec<(ModelName, String)> {
        self.read(|slots| slots.absent.iter().map(|(model, why)| (model.clone(), why.clone())).collect())
    }

    /// Runs `loaded` beside the active release; none ends the shadow.
    pub fn set_shadow(&self, model: &ModelName, loaded: Option<Arc<Loaded>>) {
        self.write(|slots| match loaded {
            Some(loaded) => slots.shadow.insert(model.clone(), loaded),
            None => slots.shadow.remove(model),
        });
    }

    /// Grows with each of the changes above: what loads releases one after another goes on.
    pub fn changes(&self) -> u64 {
        self.read(|slots| slots.changes)
    }

    fn read<T>(&self, look: impl FnOnce(&Slots) -> T) -> T {
        look(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Slots) -> T) -> T {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.changes += 1;
        change(&mut slots)
    }
}
