#!/bin/sh
# Makes the secrets that compose.yaml mounts, once; run again, it changes nothing.
#
#   sh deploy/make-secrets.sh
#
# One of them is a key that only Airstream itself can make: the image is built for that, unless AIRSTREAM names a program.
#
# The folder is closed to everybody else on this machine; the files in it are readable, because the containers read
# them as users of their own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder="$here/secrets"
if [ -e "$folder/airstream.toml" ]; then
  echo "$folder is there already; remove it to make new secrets (the servers keep the old ones in their volumes)" >&2
  exit 0
fi
mkdir -p "$folder"
chmod 700 "$folder"
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
postgres=$(secret); nats=$(secret); door=$(secret); callout=$(secret); sys=$(secret); token=$(secret)
master=$(head -c 32 /dev/urandom | base64)

if [ -n "${AIRSTREAM:-}" ]; then
  key=$("$AIRSTREAM" config nats-key)
else
  docker build --quiet --tag airstream:0.1.0 --file "$here/Dockerfile" "$here/.." >/dev/null
  key=$(docker run --rm airstream:0.1.0 config nats-key)
fi
seed=$(printf '%s\n' "$key" | awk '$1 == "nats.callout_seed" { print $2 }')
issuer=$(printf '%s\n' "$key" | awk '$1 == "issuer" { print $2 }')
[ -n "$seed" ] && [ -n "$issuer" ] || { echo "airstream made no key" >&2; exit 1; }

printf '*\n' > "$folder/.gitignore"
printf '%s' "$postgres" > "$folder/postgres_password"
cat > "$folder/nats_passwords.conf" <<END
AIRSTREAM_PASSWORD: "$nats"
DOOR_PASSWORD: "$door"
CALLOUT_PASSWORD: "$callout"
CALLOUT_ISSUER: "$issuer"
SYS_PASSWORD: "$sys"
END
# Written last: its presence says that all of them are there.
cat > "$folder/airstream.toml" <<END
[nats]
user = "airstream"
password = "$nats"
system_user = "sys"
system_password = "$sys"
tenants_user = "airstream-door"
tenants_password = "$door"
callout_user = "airstream-callout"
callout_password = "$callout"
callout_seed = "$seed"
[postgres]
url = "postgres://airstream:$postgres@postgres:5432/airstream"
[identity]
# Personal data is sealed with it: keep a copy where you keep your backups' keys.
master_key = "$master"
[development]
token = "ast_dev_$token"
END
chmod 444 "$folder/postgres_password" "$folder/nats_passwords.conf" "$folder/airstream.toml"
echo "made $folder; the token for HTTP, and for NATS as the principal dev, is in airstream.toml" >&2
