#!/bin/sh
# Makes the secrets that compose.yaml mounts, once; run again, it changes nothing.
#
#   sh deploy/make-secrets.sh
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
postgres=$(secret); nats=$(secret); dev=$(secret); sys=$(secret); token=$(secret)
master=$(head -c 32 /dev/urandom | base64)

printf '*\n' > "$folder/.gitignore"
printf '%s' "$postgres" > "$folder/postgres_password"
cat > "$folder/nats_passwords.conf" <<END
AIRSTREAM_PASSWORD: "$nats"
DEV_PASSWORD: "$dev"
SYS_PASSWORD: "$sys"
END
# Written last: its presence says that all of them are there.
cat > "$folder/airstream.toml" <<END
[nats]
user = "airstream"
password = "$nats"
system_user = "sys"
system_password = "$sys"
[postgres]
url = "postgres://airstream:$postgres@postgres:5432/airstream"
[identity]
# Personal data is sealed with it: keep a copy where you keep your backups' keys.
master_key = "$master"
[development]
token = "ast_dev_$token"
END
chmod 444 "$folder/postgres_password" "$folder/nats_passwords.conf" "$folder/airstream.toml"
echo "made $folder; the token for HTTP is in airstream.toml, the password of the NATS user dev in nats_passwords.conf" >&2
