//! What happened, in words. Pure: names are looked up before.

use serde_json::Value;

fn text<'a>(data: &'a Value, name: &str) -> &'a str {
    data.get(name).and_then(Value::as_str).unwrap_or("?")
}

/// As a tenant's admins read it. `name` says what somebody is called.
pub(super) fn theirs(action: &str, actor: &str, subject: &str, data: &Value, name: impl Fn(&str) -> String) -> String {
    let of = |field: &str| text(data, field);
    let person = |field: &str| name(text(data, field));
    let (by, whom) = (name(actor), name(subject));
    match action {
        "tenant.created" => format!("{} made the tenant “{}”.", person("owner"), of("name")),
        "tenant.renamed" => format!("{by} named the tenant “{}”.", of("name")),
        "tenant.member_invited" => format!("{} invited {} as {}.", person("by"), of("email"), of("role")),
        "tenant.invite_revoked" => format!("{by} took an invitation back, or declined it."),
        "tenant.member_joined" => format!("{} joined as {}.", person("person"), of("role")),
        "tenant.role_changed" => format!("{by} gave {} the role {}.", person("person"), of("role")),
        "tenant.member_left" => match of("reason") {
            "removed" => format!("{by} removed {}.", person("person")),
            "erased" => format!("{} was erased.", person("person")),
            _ => format!("{} left.", person("person")),
        },
        "tenant.closed" => "The tenant was closed: nobody is left.".to_owned(),
        "api-key.issued" => format!("{} made the key “{}” ({}…).", person("owner"), of("name"), of("prefix")),
        "api-key.rotated" => format!("{by} gave the key {subject} a new secret ({}…).", of("prefix")),
        "api-key.revoked" => match of("reason") {
            "owner_left" => format!("The key {subject} ended: who made it has left."),
            _ => format!("{by} revoked the key {subject}."),
        },
        "person.session_opened" => format!("{whom} signed in by {}.", of("method")),
        "person.session_ended" => format!("A session of {whom} ended: {}.", of("reason").replace('_', " ")),
        "person.sessions_ended" => format!("Sessions of {whom} ended: {}.", of("reason").replace('_', " ")),
        "person.refresh_reused" => format!("A refresh token of {whom} came twice: its session was ended."),
        "person.password_changed" => format!("{whom} set another password."),
        "person.totp_enabled" => format!("{whom} turned a second factor on."),
        "person.totp_disabled" => format!("{whom} turned the second factor off."),
        "person.recovery_codes_renewed" => format!("{whom} made new recovery codes."),
        "person.identity_linked" => format!("{whom} may also sign in by {}.", of("provider")),
        "person.identity_unlinked" => format!("{whom} may not sign in by {} any more.", of("provider")),
        "person.email_changed" => format!("{whom} has another address."),
        "person.erased" => "Somebody was erased.".to_owned(),
        other => format!("{by}: {other} on {whom}."),
    }
}

/// As the person reads it whom it is about.
pub(super) fn yours(action: &str, data: &Value) -> String {
    let of = |field: &str| text(data, field);
    match action {
        "person.registered" => "You registered.".to_owned(),
        "person.email_confirmed" => "You confirmed your address.".to_owned(),
        "person.email_changed" => format!("Your address is {} now.", of("email")),
        "person.profile_changed" => "You changed your profile.".to_owned(),
        "person.password_changed" => match of("by") {
            "reset" => "A new password was set by mail.".to_owned(),
            _ => "You set another password.".to_owned(),
        },
        "person.totp_enabled" => "You turned a second factor on.".to_owned(),
        "person.totp_disabled" => "The second factor was turned off.".to_owned(),
        "person.recovery_codes_renewed" => "You made new recovery codes.".to_owned(),
        "person.identity_linked" => format!("You may also sign in by {}.", of("provider")),
        "person.identity_unlinked" => format!("You may not sign in by {} any more.", of("provider")),
        "person.session_opened" => format!("You signed in by {}.", of("method")),
        "person.session_ended" => format!("A session ended: {}.", of("reason").replace('_', " ")),
        "person.sessions_ended" => match data.get("keep").and_then(Value::as_str) {
            Some(_) => format!("All sessions but one ended: {}.", of("reason").replace('_', " ")),
            None => format!("All sessions ended: {}.", of("reason").replace('_', " ")),
        },
        "person.refresh_reused" => {
            "A refresh token came twice, so somebody else may have had it: its session was ended.".to_owned()
        }
        "person.export_requested" => "You asked for everything that is stored about you.".to_owned(),
        other => format!("{other}."),
    }
}

#[cfg(test)]
mod tests {
    use kernel::EventSet as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sentence_says_who_did_what_to_whom() {
        let name = |id: &str| id.trim_start_matches("usr_").to_owned();
        let data = json!({ "person": "usr_bob", "role": "admin" });
        let said = theirs("tenant.role_changed", "usr_ann", "tnt_1", &data, name);
        assert_eq!(said, "ann gave bob the role admin.");
        let data = json!({ "method": "password+totp" });
        assert_eq!(
            theirs("person.session_opened", "usr_bob", "usr_bob", &data, name),
            "bob signed in by password+totp."
        );
    }

    #[test]
    fn there_are_words_for_every_event() {
        let types = [events::tenant::Event::TYPES, events::key::Event::TYPES].concat();
        for (action, _) in types {
            let said = theirs(action, "a", "s", &json!({}), str::to_owned);
            assert!(!said.contains(action), "{action}: {said}");
        }
        for (action, _) in events::person::Event::TYPES.iter().filter(|(action, _)| *action != "person.erased") {
            assert!(!yours(action, &json!({})).contains(action), "{action}");
        }
    }
}
