//! Identity's state: what is decided under row locks rather than folded from the log (ADR 0020).

mod api_keys;
mod codes;
mod credentials;
mod devices;
mod erasures;
mod exports;
mod handles;
mod invites;
mod keys;
mod sessions;
mod signing;

pub use api_keys::{ApiKeyRow, ApiKeys, NewApiKey, NewSecret, Opens, SecretRow};
pub use codes::{Codes, NewCode, Pace};
pub use credentials::{Credentials, CredentialsRow};
pub use devices::{Approval, Devices, NewDevice, Polled};
pub use erasures::{Erasures, OWN_ROWS, Outcome, Remains};
pub use exports::{EXPORT_SECONDS, ExportRow, Exports};
pub use handles::{Claim, Handles, Kind, OLD_AFTER_SECONDS, Settling};
pub use invites::{InviteKey, Invites};
pub use keys::PgKeyring;
pub use sessions::{GRACE_SECONDS, NewSession, Refreshed, SessionRow, Sessions};
pub use signing::{SigningKeyRow, SigningKeys};

/// Every statement, for the test that prepares them.
pub(crate) const STATEMENTS: &[&str] = &[
    api_keys::MAKE,
    api_keys::ADD_SECRET,
    api_keys::LOCK,
    api_keys::NUMBER,
    api_keys::SHORTEN,
    api_keys::BY_SECRET,
    api_keys::LIST,
    api_keys::COUNT,
    api_keys::REVOKE,
    api_keys::OF_OWNER,
    api_keys::USED,
    api_keys::SWEEP,
    api_keys::SWEEP_UNMADE,
    codes::KEEP_CODE,
    codes::USE_CODE,
    codes::PEEK_CODE,
    codes::VOID_CODES,
    codes::ERASE_CODES,
    codes::SWEEP_CODES,
    codes::ATTEMPT,
    codes::NEXT_ATTEMPT,
    codes::FORGIVE,
    codes::SWEEP_ATTEMPTS,
    credentials::ENROL,
    credentials::READ,
    credentials::SET_PASSWORD,
    credentials::REHASH,
    credentials::PREPARE_TOTP,
    credentials::ACCEPT_TOTP,
    credentials::DISABLE_TOTP,
    credentials::RENEW_CODES,
    credentials::DROP_CODES,
    credentials::KEEP_CODES,
    credentials::USE_RECOVERY,
    credentials::ERASE,
    devices::ASK,
    devices::SHOW,
    devices::DECIDE,
    devices::POLL,
    devices::POLLED,
    devices::USED,
    devices::WITHDRAW,
    devices::ERASE,
    devices::SWEEP,
    erasures::INVITES,
    erasures::KEYS,
    erasures::TENANTS,
    erasures::BEGIN,
    erasures::FORGET_INVITES,
    erasures::COUNT,
    erasures::NOTE,
    erasures::FINISH,
    erasures::OUTCOME,
    exports::ASK,
    exports::WITHDRAW,
    exports::KEEP,
    exports::FAIL,
    exports::GET,
    exports::ARCHIVE,
    exports::RECENT,
    exports::KEYS,
    exports::SWEEP,
    handles::CLAIM,
    handles::TAKE_OVER,
    handles::HOLD,
    handles::RELEASE,
    handles::ALONE,
    handles::RELEASE_OTHERS,
    handles::RELEASE_ALL,
    handles::FIND,
    invites::NOTE,
    invites::BY_CODE,
    invites::TO_ADDRESS,
    invites::FORGET,
    keys::GET,
    keys::GET_OR_KEEP,
    keys::DESTROY,
    signing::LIST,
    signing::ADD,
    signing::RETIRE,
    sessions::OPEN,
    sessions::LOCK,
    sessions::ROTATE,
    sessions::END,
    sessions::END_ALL,
    sessions::END_OLDEST,
    sessions::OF_PERSON,
    sessions::LIVE,
    sessions::WORKING_IN,
    sessions::CHOOSE,
    sessions::SWEEP,
];
