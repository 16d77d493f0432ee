//! Members leave, or are made to.

use crate::{GroupError, GroupRules, LeavingMember, outbox::Outbox};

use super::{Group, GroupState, Now};

impl Group {
    /// Takes members out, each with an answer of its own; then a round if anyone left.
    pub(crate) fn leave(
        &mut self,
        now: Now,
        rules: &GroupRules,
        leaving: &[LeavingMember],
        out: &mut Outbox,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let before = self.members.len();
        let answers: Vec<_> = leaving
            .iter()
            .map(|member| self.leave_one(member, out))
            .collect();
        if self.members.len() < before {
            self.rebalance_or_complete(now, rules, out);
        } else {
            // One whose id was never used leaves nobody with less; a round may have waited for it.
            self.complete_if_everybody_joined(now, out);
        }
        Ok(answers)
    }

    fn leave_one(&mut self, leaving: &LeavingMember, out: &mut Outbox) -> Result<(), GroupError> {
        let instance = leaving.group_instance_id.as_deref();
        let member_id = match &leaving.member_id {
            // An administrator names the instance only.
            None => {
                let holder = instance.and_then(|instance| self.static_members.get(instance));
                holder.cloned().ok_or(GroupError::UnknownMemberId)?
            }
            Some(member_id) => {
                if self.pending_members.remove(member_id).is_some() {
                    return Ok(());
                }
                self.check_member(member_id, instance)?.member_id.clone()
            }
        };
        self.remove_member(&member_id, out);
        Ok(())
    }
}
