//! Keep the residual stream in f16 or bf16: rounded after the embedding and after every sublayer, as a model in that
//! type would. What is too large for f16 becomes infinite there, and no number soon after.

use linkme::distributed_slice;

use super::{Intervention, Plan, Survey};
use crate::backend::alter::Short;
use crate::policy::descriptor::{Descriptor, Family};
use crate::policy::key::{Choice, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;

static TO: Key<Choice<Short>> =
    Key::new("to", "number type", Choice(&[("f16", Short::F16), ("bf16", Short::Bf16)]), Short::Bf16);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "cast",
    family: Family::Intervention,
    idea: "keep the residual stream in f16 or bf16: rounded after the embedding and every sublayer",
    paper: None,
    budget: None,
    keys: &[&TO],
    build: |spec| Part::intervention(Cast { to: spec.get(&TO) }),
};

struct Cast {
    to: Short,
}

impl Intervention for Cast {
    fn plan(&self, _: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        match plan.alterations.cast.replace(self.to) {
            Some(other) if other != self.to => {
                Err("the stream is in one type; run the other as a lane of its own".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, plan};

    #[test]
    fn a_stream_has_one_type() {
        let mut toy = Toy { massive: None, bos: false };
        assert!(plan("cast:to=f16+cast:to=bf16", &mut toy).is_err());
        assert!(plan("cast:to=f16", &mut toy).is_ok());
    }
}
