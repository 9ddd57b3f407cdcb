"""A mail server for tests. Says its port, and then a line of JSON for each mail that it took.

What it answers follows from the address: `nobody@` is refused for good, `busy…@` twice for now, `content@` after it was read.
"""

import argparse
import asyncio
import json
import ssl
import sys
from email import message_from_bytes, policy

import trustme
from aiosmtpd.smtp import SMTP, AuthResult

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--login", help="user:password")
arguments.add_argument("--security", choices=["none", "starttls", "tls"], default="none")
arguments.add_argument("--authority", help="where to write the certificate of who vouches for us")
arguments = arguments.parse_args()


def say(what):
    print(json.dumps(what), flush=True)


class Answers:
    def __init__(self):
        self.asked = {}

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        times = self.asked[address] = self.asked.get(address, 0) + 1
        if name == "nobody":
            return f"550 5.1.1 <{address}>: nobody of that name here"
        if name.startswith("busy") and times <= 2:
            return "451 4.7.1 greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if envelope.rcpt_tos[0].startswith("content@"):
            return "554 5.7.1 we do not like what it says"
        mail = message_from_bytes(envelope.content, policy=policy.default)
        say(
            {
                "sender": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": mail["Subject"],
                "id": mail["Message-ID"],
                "text": "\n".join(mail.get_content().split("\r\n")).rstrip(),
                "defects": [str(defect) for defect in mail.defects],
                "encrypted": server.transport.get_extra_info("ssl_object") is not None,
                "login": session.auth_data,
                "peer": session.peer[1],
            }
        )
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    given = f"{data.login.decode()}:{data.password.decode()}"
    return AuthResult(success=given == arguments.login, handled=False, auth_data=data.login.decode())


async def main():
    context = None
    if arguments.security != "none":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(arguments.authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
    starttls = arguments.security == "starttls"
    answers = Answers()

    def connection():
        return SMTP(
            answers,
            hostname="mail.test",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            auth_required=arguments.login is not None,
            auth_require_tls=starttls,
            authenticator=authenticate if arguments.login else None,
            enable_SMTPUTF8=False,
        )

    server = await asyncio.get_running_loop().create_server(
        connection, "localhost", arguments.port, ssl=context if arguments.security == "tls" else None
    )
    say({"port": server.sockets[0].getsockname()[1]})
    await server.serve_forever()


sys.exit(asyncio.run(main()))
