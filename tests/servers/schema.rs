//! Migrations and statements, against a real database.

use projections::{migrate, migration_state, migrations, statements};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};
use stories::Servers;

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_can_be_prepared() {
    let servers = Servers::fresh().await.unwrap();
    let mut connection = PgConnection::connect(&servers.postgres_url).await.unwrap();
    for (schema, sql) in statements::all() {
        let path = format!("SET search_path TO {schema}");
        connection.execute(AssertSqlSafe(path)).await.unwrap();
        let prepared = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await;
        assert!(prepared.is_ok(), "{sql}\n cannot be prepared: {:?}", prepared.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_changes_nothing_and_two_at_once_do_it_once() {
    let servers = Servers::fresh().await.unwrap();
    let (one, other) = tokio::join!(migrate(servers.database.pool()), migrate(servers.database.pool()));
    assert_eq!((one.unwrap().applied, other.unwrap().applied), (0, 0));
    let state = migration_state(servers.database.pool()).await.unwrap();
    assert!(state.iter().all(|migration| migration.applied) && state.len() == migrations().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_called_like_our_schema_still_finds_what_was_applied() {
    // The role of the embedded Postgres is `airstream`, and so is a schema: with the default search path the list of
    // applied migrations was looked for there after the first start, and everything began anew.
    let servers = Servers::fresh().await.unwrap();
    let reopened = projections::Database::open(&servers.postgres_url, 1).await.unwrap();
    assert_eq!(migrate(reopened.pool()).await.unwrap().applied, 0);
}

/// A released migration is never edited: databases out there have applied exactly these bytes.
#[test]
fn released_migrations_have_not_been_edited() {
    let digest = |text: &str| kernel::Fingerprint::of("migration", text.as_bytes()).as_str().to_owned();
    let found: Vec<String> =
        migrations().iter().map(|(number, name, sql)| format!("{number}_{name} {}", digest(sql))).collect();
    expect_test::expect![[r#"
        0001_machinery 9ca1b738e2af67fe
        0002_commits 61520ed36cfc318e
        0003_workflows d6b74e1542dcdd2a
        0004_runs 84c9422b5628d9cd
        0005_inbox 3b6c0c8914c9f16d
        0006_leases 0e0a1789ac43fefe
        0007_create_snapshots 26f52e62a5f1cc13
        0008_folds 5ab3a8cb0755722d
        0009_identity 3ed8ae56717ec4f6
        0010_mail b4dd24cddc23411b
        0011_tenants a51dfbb21bfc1f1b
        0012_gateway 57532f8f0ebd8b5a
        0013_audit 70188961497565a1"#]]
    .assert_eq(&found.join("\n"));
}
