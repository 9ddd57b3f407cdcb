//! Subjects, both ways. The grammar of DESIGN §2 and §3:
//!
//! ```text
//! ev.<shard>.<tenant>.<category>.<id>                       a commit of a stream
//! cmd.<tenant>.<principal>.<category>.<id>.<command>        ask and wait
//! queue.<tenant>.<principal>.<category>.<id>.<command>      fire and forget
//! tasks.<tenant>.<name>                                     a step for outside workers
//! work.<tenant>.<principal>.<name>                          a worker asks for the next one
//! feed.<tenant>.<category>.<event type>                     live copies of events
//! _INBOX.<tenant>.<principal>.…                             where a caller wants its answers
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

/// Subject of an event's live copy. The type has dots of its own.
#[must_use]
pub fn feed(tenant: &TenantId, category: &Category, type_name: &str) -> String {
    format!("feed.{tenant}.{category}.{type_name}")
}

/// Under which subjects a caller waits for its answers: what a client is given as its *inbox prefix*.
#[must_use]
pub fn inbox(tenant: &TenantId, principal: &PrincipalId) -> String {
    format!("_INBOX.{tenant}.{principal}")
}

/// Whether an answer would go to whoever asked on this subject: `<door>.<tenant>.<principal>.…` and
/// `_INBOX.<tenant>.<principal>.…`.
///
/// The server vouches for the first, and does not look at where an answer is wanted: it would go out with our rights, into
/// another one's inbox, or to a door as somebody else's command.
#[must_use]
pub fn is_own_inbox(subject: &str, reply: &str) -> bool {
    let mut asks = subject.split('.').skip(1);
    let mut wants = reply.split('.');
    let own = |asks: Option<&str>, wants: Option<&str>| asks.is_some_and(|token| !token.is_empty()) && asks == wants;
    wants.next() == Some("_INBOX")
        && own(asks.next(), wants.next())
        && own(asks.next(), wants.next())
        && wants.next().is_some_and(|rest| !rest.is_empty())
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
    fn an_answer_goes_to_whoever_asked() {
        let asked = "cmd.acme.key_1.run.r.start";
        for own in ["_INBOX.acme.key_1.x", "_INBOX.acme.key_1.x.y"] {
            assert!(is_own_inbox(asked, own), "{own}");
        }
        for other in [
            "_INBOX.x",
            "_INBOX.acme.key_1",
            "_INBOX.acme.key_1.",
            "_INBOX.acme.key_12.x",
            "_INBOX.acme.key_2.x",
            "_INBOX.other.key_1.x",
            "_INBOX_AIRSTREAM.acme.key_1.x",
            "ev.1.acme.run.r",
            "feed.acme.key_1.x",
            "queue.acme.key_1.run.r.cancel",
            "$JS.ACK.COMMANDS.x.1.1.1.1.1",
            "",
        ] {
            assert!(!is_own_inbox(asked, other), "{other}");
        }
        assert!(!is_own_inbox("cmd", "_INBOX..x") && !is_own_inbox("cmd..x", "_INBOX..x.y"));
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
