#!/usr/bin/env python3
"""Notifications against real local servers: a webhook that checks the signature, a push service that decrypts, an SMTP sink with
STARTTLS; batching, quiet while read or connected, retries, dead endpoints, and the guard against private addresses."""
import base64
import email
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    print("SKIPPED: python3-cryptography is not installed")
    sys.exit(77)

from harness import BIN, Pipeline, check, failures, until

CONVSTORE = os.path.join(BIN, "convstore")
posts = []      # (path, headers, body) as they came
script = {}     # path → statuses to give, then 200
unb64 = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        answers = script.get(self.path, [])
        status = answers.pop(0) if answers else 200
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/target")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Smtp(threading.Thread):
    """A sink for mail. With a certificate it offers STARTTLS."""

    def __init__(self, context=None):
        super().__init__(daemon=True)
        self.context, self.mails, self.encrypted = context, [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        secure, rcpt = False, None
        file = connection.makefile("rb")
        say = lambda text: connection.sendall(text.encode() + b"\r\n")
        try:
            say("220 sink")
            while line := file.readline():
                word = line.split(b" ")[0].strip().upper()
                if word == b"EHLO":
                    say("250-sink\r\n250-STARTTLS\r\n250 8BITMIME" if self.context and not secure else "250 sink")
                elif word == b"STARTTLS":
                    say("220 go")
                    connection = self.context.wrap_socket(connection, server_side=True)
                    file, secure = connection.makefile("rb"), True
                    say = lambda text: connection.sendall(text.encode() + b"\r\n")
                elif word == b"RCPT":
                    rcpt = line.decode().strip()
                    say("250 ok")
                elif word == b"DATA":
                    say("354 go")
                    data = b""
                    while (line := file.readline()) and line != b".\r\n":
                        data += line
                    self.mails.append((rcpt, data))
                    self.encrypted.append(secure)
                    say("250 taken")
                elif word == b"QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 ok")
        except (OSError, ssl.SSLError):
            pass


class Browser:
    """What a browser keeps of a push subscription."""

    def __init__(self):
        self.key, self.auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
        point = self.key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        self.point, self.keys = point, {"p256dh": b64(point), "auth": b64(self.auth)}

    def read(self, body):
        """RFC 8291, by another library."""
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, sealed = body[21:21 + length], body[21 + length:]
        assert len(sealed) <= size and length == 65
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        derive = lambda salt, secret, info, n: HKDF(hashes.SHA256(), n, salt, info).derive(secret)
        ikm = derive(self.auth, shared, b"WebPush: info\0" + self.point + sender, 32)
        key, nonce = derive(salt, ikm, b"Content-Encoding: aes128gcm\0", 16), derive(salt, ikm, b"Content-Encoding: nonce\0", 12)
        plain = AESGCM(key).decrypt(nonce, sealed, None)
        assert plain[-1] == 2
        return json.loads(plain[:-1])


def vapid_holds(header, public, audience):
    token, key = re.fullmatch(r"vapid t=([^,]+), k=(\S+)", header).groups()
    head, claims, signature = token.split(".")
    raw = unb64(signature)
    der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), unb64(key)).verify(der, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    claims = json.loads(unb64(claims))
    return key == public and claims["aud"] == audience and 0 < claims["exp"] - time.time() <= 86400 and claims["sub"] == "mailto:op@example.org"


server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
to = lambda path: [p for p in posts if p[0] == path]

with Pipeline(PARLEY_MODEL="/nonexistent", PARLEY_SIMULATE="--simulate-speed=100", PARLEY_NOTIFY="no") as pipeline:
    env = dict(os.environ, PARLEY_STATE=pipeline.state)
    cert, key = os.path.join(pipeline.state, "cert.pem"), os.path.join(pipeline.state, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    secure, plain = Smtp(context), Smtp()
    log = os.path.join(pipeline.state, "log", "notify.log")

    def notify(*options, smtp=secure, private=True):
        return subprocess.Popen([CONVSTORE, "notify", "--delay", "700ms", "--email-delay", "900ms", "--retry", "200ms", "--attempts-max", "4",
                                 "--contact", "mailto:op@example.org", "--smtp-url", f"smtp://localhost:{smtp.port}", "--smtp-from",
                                 "parley@example.org", "--smtp-starttls", "required", "--ca-file", cert,
                                 *(["--allow-private"] if private else []), *options], env=env, stderr=open(log, "a"))

    def logged(text):
        return text in open(log).read()

    def api(method, path, body=None, user="ann"):
        status, _, answer = pipeline.request(method, path, body, headers=pipeline.headers({"x-user-id": user}))
        return status, answer

    def ask(title, user="ann"):
        conversation = api("POST", "/v1/conversations", {"title": title}, user)[1]["id"]
        status, sent = api("POST", f"/v1/conversations/{conversation}/messages", {"content": "a secret question", "stream": False, "max_tokens": 4}, user)
        assert status == 200, sent
        return conversation, sent["message"]["id"]

    follower = notify()
    try:
        check("the follower is ready", until(lambda: logged("notify.ready")), open(log).read())
        status, at_first = api("GET", "/v1/notifications")
        check("nobody is told anything at first", status == 200 and at_first["webhook"] is None and at_first["email"] is None and at_first["push"] == []
              and at_first["quiet_while_connected"] is True, at_first)
        for body in ({"webhook": {"url": "ftp://x/"}}, {"webhook": {"url": "http://user:pw@host/"}}, {"webhook": {}}, {"webhook": {"url": "http://a b/"}},
                     {"email": {"address": "a@b\r\nBcc: c@d"}}, {"email": {"address": "nobody"}}, {"email": {"address": "a@b,c@d"}},
                     {"push": [{"endpoint": base, "keys": {"p256dh": "AAAA", "auth": "AAAA"}}]}, {"push": {}}, {"nonsense": 1}, "[]", "{"):
            status, answer = api("PUT", "/v1/notifications", body)
            check(f"{json.dumps(body)[:60]} is a 400", status == 400 and answer["error"]["type"] == "invalid_request_error", answer)
        browser = Browser()
        status, put = api("PUT", "/v1/notifications", {"webhook": {"url": base + "/hook"}, "email": {"address": "ann@example.org"},
                                                       "push": [{"endpoint": base + "/push/1", "keys": browser.keys}]})
        secret = put.get("webhook_secret", "")
        check("settings are taken, and the webhook's secret is told once", status == 200 and len(secret) > 40
              and secret not in json.dumps(api("GET", "/v1/notifications")[1]), put)
        check("they are one's own", api("GET", "/v1/notifications", user="bob")[1]["webhook"] is None)

        first, _ = ask("Fruit \u00e9\r\n")
        second, _ = ask("Second")
        ask("not mine", user="bob")
        check("webhook, mail and push go out", until(lambda: to("/hook") and to("/push/1") and secure.mails), (posts, secure.mails))
        time.sleep(1)
        check("what waits goes out as one", (len(to("/hook")), len(to("/push/1")), len(secure.mails)) == (1, 1, 1), (posts, secure.mails))
        _, headers, body = to("/hook")[0]
        stamp, mark = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["parley-signature"]).groups()
        told = json.loads(body)
        check("the webhook is signed", hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest() == mark and abs(int(stamp) - time.time()) < 60)
        check("it names the conversations, and holds no text", {c["conversation_id"] for c in told["conversations"]} == {first, second}
              and told["user"] == "ann" and headers["parley-delivery"] == told["id"] and b"secret question" not in body, told)
        _, headers, body = to("/push/1")[0]
        pushed = browser.read(body)
        check("the browser can read the push, and nobody else", len(pushed["conversations"]) == 2 and b"conv_" not in body, pushed)
        check("VAPID holds for this push service", vapid_holds(headers["authorization"], api("GET", "/v1/notifications")[1]["vapid_public_key"], base)
              and headers["content-encoding"] == "aes128gcm" and int(headers["ttl"]) > 0, headers)
        rcpt, raw = secure.mails[0]
        mail = email.message_from_bytes(raw)
        text = mail.get_payload(decode=True).decode()
        check("the mail came over TLS to its address", secure.encrypted == [True] and rcpt == "RCPT TO:<ann@example.org>", (secure.encrypted, rcpt))
        check("it lists what waits, with its titles as text", mail["subject"] == "Answers wait in 2 conversations" and "Fruit \u00e9" in text
              and "Second" in text and mail["message-id"] and mail["bcc"] is None, (raw, text))

        # Read elsewhere in time: nothing.
        posts.clear()
        conversation, answer = ask("read at once")
        api("POST", f"/v1/conversations/{conversation}/read", {"message_id": answer})
        time.sleep(2)
        check("what was read meanwhile is not told", posts == [] and len(secure.mails) == 1, posts)

        # A connected device keeps it quiet; when it has gone, what waits is told.
        api("PUT", "/v1/notifications", {"email": None, "push": None})
        feed = socket.create_connection((pipeline.host, pipeline.port))
        feed.sendall(f"GET /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {pipeline.key}\r\nx-user-id: ann\r\n\r\n".encode())
        run = os.path.join(pipeline.state, "run")
        seen = lambda: any(os.path.getsize(os.path.join(run, n)) > 0 for n in os.listdir(run) if n.endswith(".presence"))
        check("chatd says who is connected", until(seen))
        time.sleep(1.2)
        quiet, _ = ask("while connected")
        time.sleep(2.5)
        check("nothing is told while a device is connected", to("/hook") == [], posts)
        feed.close()
        check("it is told once the device has gone", until(lambda: to("/hook"), 15)
              and [c["conversation_id"] for c in json.loads(to("/hook")[0][2])["conversations"]] == [quiet], posts)

        # Retries: the same delivery, until it is taken.
        posts.clear()
        script["/hook"] = [503, 429]
        ask("again and again")
        check("a refused delivery is tried again until it is taken", until(lambda: len(to("/hook")) == 3), posts)
        check("under one id", len({p[1]["parley-delivery"] for p in posts}) == 1)
        time.sleep(1)
        check("and then no more", len(to("/hook")) == 3)
        posts.clear()
        script["/hook"] = [500] * 50
        ask("in vain")
        check("it ends after --attempts-max", until(lambda: len(to("/hook")) == 4) and not until(lambda: len(to("/hook")) > 4, 3), len(posts))
        script["/hook"] = [400]
        posts.clear()
        ask("not like this")
        check("a 400 is not tried again", until(lambda: to("/hook")) and not until(lambda: len(to("/hook")) > 1, 1.5), posts)

        # Dead endpoints.
        other = Browser()
        api("PUT", "/v1/notifications", {"webhook": {"url": base + "/gone"}, "push": [{"endpoint": base + "/push/dead", "keys": browser.keys},
                                                                                     {"endpoint": base + "/push/2", "keys": other.keys}]})
        script.update({"/gone": [404], "/push/dead": [410]})
        ask("for the living")
        check("the living browser is told", until(lambda: to("/push/2")) and other.read(to("/push/2")[0][2])["text"])
        check("dead endpoints are taken out of the settings, and no others",
              until(lambda: (lambda s: s["webhook"] is None and [p["endpoint"] for p in s["push"]] == [base + "/push/2"])(api("GET", "/v1/notifications")[1])),
              api("GET", "/v1/notifications")[1])

        # No redirect is followed.
        posts.clear()
        api("PUT", "/v1/notifications", {"push": None, "webhook": {"url": base + "/moved"}})
        script["/moved"] = [302] * 9
        ask("elsewhere")
        check("a redirect is not followed", until(lambda: to("/moved")) and not until(lambda: to("/target"), 1.5), posts)

        # Killed: what came meanwhile is told, what was told is not told again.
        api("PUT", "/v1/notifications", {"webhook": {"url": base + "/hook"}})
        script.clear()
        posts.clear()
        ask("before")
        until(lambda: to("/hook"))
        time.sleep(0.5)
        follower.kill()
        follower.wait()
        after, _ = ask("after")
        follower = notify()
        check("what came while the follower was dead is told", until(lambda: len(to("/hook")) == 2), posts)
        time.sleep(1)
        check("once, and nothing else again", len(to("/hook")) == 2 and [c["conversation_id"] for c in json.loads(to("/hook")[1][2])["conversations"]] == [after], posts)

        # Mail where TLS is required and not offered does not go out in the clear.
        follower.send_signal(signal.SIGTERM)
        check("it ends with 0", follower.wait(15) == 0)
        follower = notify(smtp=plain)
        api("PUT", "/v1/notifications", {"webhook": None, "email": {"address": "ann@example.org"}})
        ask("in the clear")
        check("mail is not sent in the clear where TLS is required", until(lambda: logged("notify.retry") and logged("channel=email")) and plain.mails == [], plain.mails)
        follower.send_signal(signal.SIGTERM)
        follower.wait(15)

        # The guard.
        posts.clear()
        api("PUT", "/v1/notifications", {"email": None})
        follower = notify(private=False)
        for number, host in enumerate(("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0")):
            api("PUT", "/v1/notifications", {"webhook": {"url": f"http://{host}:{server.server_port}/guarded"}})
            before = open(log).read().count("notify.refused")
            ask("guarded")
            check(f"a webhook at {host} is refused", until(lambda: open(log).read().count("notify.refused") > before, 8) and posts == [], posts)
    finally:
        follower.send_signal(signal.SIGTERM)
        follower.wait(20)

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
