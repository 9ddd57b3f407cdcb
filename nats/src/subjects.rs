//! Subjects, both ways. The grammar of DESIGN §2 and §3:
//!
//! ```text
//! ev.<shard>.<tenant>.<category>.<id>                       a commit of a stream
//! cmd.<tenant>.<principal>.<category>.<id>.<command>        ask and wait
//! queue.<tenant>.<principal>.<category>.<id>.<command>      fire and forget
//! tasks.<tenant>.<name>                                     a step for outside workers
//! work.<tenant>.<principal>.<name>                          a worker asks for the next one
//! peer.<instance>                                           from instance to instance, closed to everybody else
//! ```

use kernel::{Category, InvalidName, PrincipalId, StreamId, StreamName, TenantId};
use runtime::Filter;

/// Subject of a stream's commits.
#[must_use]
pub fn commit(stream: &StreamName) -> String {
    format!("ev.{}.{}.{}.{}", stream.shard(), stream.tenant, stream.category, stream.id)
}

/// The stream of a commit's subject; `None` for a subject that we did not write.
#[must_use]
pub fn stream(subject: &str) -> Option<StreamName> {
    let mut tokens = subject.split('.');
    let (Some("ev"), Some(shard), Some(tenant), Some(category), Some(id), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return None;
    };
    let name = StreamName::new(tenant, category, id).ok()?;
    (shard.parse() == Ok(name.shard())).then_some(name)
}

/// Subject pattern of a filter.
#[must_use]
pub fn pattern(filter: &Filter) -> String {
    let part = |text: Option<&str>| text.unwrap_or("*").to_owned();
    match (&filter.tenant, &filter.category, &filter.id) {
        (None, None, None) => "ev.>".to_owned(),
        (Some(tenant), Some(category), Some(id)) => {
            commit(&StreamName { tenant: tenant.clone(), category: category.clone(), id: id.clone() })
        }
        (tenant, category, id) => format!(
            "ev.*.{}.{}.{}",
            part(tenant.as_ref().map(TenantId::as_str)),
            part(category.as_ref().map(Category::as_str)),
            part(id.as_ref().map(StreamId::as_str)),
        ),
    }
}

/// Subject of a task that waits for a worker.
#[must_use]
pub fn task(tenant: &str, name: &str) -> String {
    format!("tasks.{tenant}.{name}")
}

/// What a command's subject says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The stream it is for.
    pub stream: StreamName,
    /// Who asks: the server's permissions vouch for this token.
    pub principal: PrincipalId,
    /// The command's wire name.
    pub command: String,
}

/// Reads `<door>.<tenant>.<principal>.<category>.<id>.<command>`; the door has been matched by the subscription.
///
/// # Errors
/// [`InvalidName`] that names the part that is missing or not allowed.
pub fn addressed(subject: &str) -> Result<Addressed, InvalidName> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let [_, tenant, principal, category, id, command] = tokens.as_slice() else {
        return Err(InvalidName {
            what: "the subject",
            text: subject.chars().take(96).collect(),
            rule: "it has six tokens: <door>.<tenant>.<principal>.<category>.<id>.<command>",
        });
    };
    Ok(Addressed {
        stream: StreamName::new(tenant, category, id)?,
        principal: PrincipalId::new(principal)?,
        command: kernel::Token::parse("the command", command)?.as_str().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_subject_reads_back_and_foreign_subjects_do_not() {
        let name = StreamName::new("dev", "workflow", "wf_12345").expect("a valid name");
        assert_eq!(commit(&name), "ev.12.dev.workflow.wf_12345");
        assert_eq!(stream("ev.12.dev.workflow.wf_12345"), Some(name));
        for foreign in ["ev.3.dev.workflow.wf_12345", "ev.12.dev.workflow", "ev.12.dev.workflow.a.b", "x.12.d.w.i", ""]
        {
            assert_eq!(stream(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_command_subject_has_six_tokens() {
        let read = addressed("cmd.dev.ann.workflow.wf_1.define").expect("a valid subject");
        assert_eq!((read.stream.to_string(), read.command), ("dev/workflow/wf_1".into(), "define".into()));
        for bad in ["cmd.dev.ann.workflow.wf_1", "cmd.dev.ann.workflow.wf 1.define", "cmd.dev..workflow.x.y", "cmd"] {
            assert!(addressed(bad).is_err(), "{bad} was accepted");
        }
    }
}
