//! Looks at a PostgreSQL that is somebody else's, before anything depends on it. Changes nothing.

use std::str::FromStr;
use std::time::Duration;

use runtime::finding::Finding;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

/// The oldest version that is tested.
const OLDEST: i32 = 15_00_00;

pub(crate) const SETTINGS: &str = "
    SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync') = 'on',
        current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
        pg_is_in_recovery(), pg_encoding_to_char(encoding)::text,
        has_database_privilege(oid, 'CREATE')
    FROM pg_database WHERE datname = current_database()";
/// Who may not see what others do sees at least that they are there.
pub(crate) const CONNECTIONS: &str =
    "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
pub(crate) const FOREIGN_SCHEMA: &str = "
    SELECT count(*)::int FROM pg_namespace WHERE nspname = 'airstream' AND NOT pg_has_role(nspowner, 'USAGE')";

/// Looks at everything that a start depends on. `needed` is how many connections one instance takes at most.
pub async fn examine(url: &str, needed: u32) -> Vec<Finding> {
    let mut connection = match open(url).await {
        Ok(connection) => connection,
        Err(reason) => {
            let advice = "start it, or mend postgres.url";
            return vec![Finding::fail("postgres.reachable", format!("nobody lets us in: {reason}"), advice)];
        }
    };
    let mut findings = vec![Finding::ok("postgres.reachable", "it answers")];
    match look(&mut connection, needed).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(Finding::fail(
            "postgres.settings",
            format!("its settings cannot be read: {error}"),
            "see whether this is PostgreSQL, and not something that speaks like it",
        )),
    }
    let _ = connection.close().await;
    findings
}

async fn open(url: &str) -> Result<PgConnection, String> {
    let options =
        PgConnectOptions::from_str(url).map_err(|error| error.to_string())?.application_name("airstream doctor");
    match tokio::time::timeout(Duration::from_secs(5), PgConnection::connect_with(&options)).await {
        Ok(connection) => connection.map_err(|error| error.to_string()),
        Err(_) => Err("no answer within five seconds".to_owned()),
    }
}

async fn look(connection: &mut PgConnection, needed: u32) -> Result<Vec<Finding>, sqlx::Error> {
    type Columns = (i32, String, bool, bool, String, i32, bool, String, bool);
    let (number, version, fsync, full_pages, synchronous, limit, replica, encoding, may_create): Columns =
        sqlx::query_as(SETTINGS).fetch_one(&mut *connection).await?;
    let taken: i32 = sqlx::query_scalar(CONNECTIONS).fetch_one(&mut *connection).await?;
    let foreign: i32 = sqlx::query_scalar(FOREIGN_SCHEMA).fetch_one(&mut *connection).await?;
    let mut findings = Vec::new();
    let mut check = |good: bool, finding: Finding, well: String| {
        findings.push(if good { Finding::ok(finding.code, well) } else { finding });
    };
    check(
        number >= OLDEST,
        Finding::fail("postgres.version", format!("version {version} is older than 15"), "upgrade PostgreSQL"),
        version.clone(),
    );
    check(
        !replica,
        Finding::fail("postgres.primary", "it is a standby and takes no writes", "name the primary in postgres.url"),
        "it takes writes".to_owned(),
    );
    check(
        encoding == "UTF8",
        Finding::fail(
            "postgres.encoding",
            format!("the database is encoded in {encoding} and cannot keep every text that a command may have"),
            "create the database with ENCODING 'UTF8'",
        ),
        encoding.clone(),
    );
    check(
        may_create && foreign == 0,
        Finding::fail(
            "postgres.rights",
            if foreign > 0 {
                "the schema `airstream` belongs to a role that is not ours"
            } else {
                "our role may not create schemas"
            },
            "GRANT CREATE ON DATABASE to our role, and make it the owner of what is there",
        ),
        "our role may create schemas".to_owned(),
    );
    check(
        fsync && full_pages,
        Finding::warn(
            "postgres.durability",
            "`fsync` or `full_page_writes` is off: after a power failure the database may be damaged without telling. \
             Everything in it can be rebuilt from the log, once somebody has noticed",
            "set both to on",
        ),
        "it survives a power failure".to_owned(),
    );
    check(
        synchronous != "off",
        Finding::warn(
            "postgres.synchronous_commit",
            "`synchronous_commit` is off: effects that were settled in the last moments before a power failure are done again \
             (with the same idempotency key), and a person's `parked skip` may be forgotten",
            "set it to on for our role; projections turn it off for themselves, where the log replays",
        ),
        synchronous.clone(),
    );
    let needed = i32::try_from(needed).unwrap_or(i32::MAX);
    let detail = format!("{taken} of {limit} connections are taken; one instance takes up to {needed}");
    let advice = "raise max_connections, or lower postgres.max_connections of ours";
    let short = if limit < needed {
        Finding::fail("postgres.connections", detail.clone(), advice)
    } else {
        Finding::warn("postgres.connections", detail.clone(), advice)
    };
    check(limit - taken >= needed, short, detail);
    Ok(findings)
}
