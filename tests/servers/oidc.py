"""A small OpenID Connect provider: discovery, keys, authorization code flow with PKCE, user info, end of session.

Run as a process of its own: ``python -m servers.oidc PORT``. It knows one confidential client and signs in whoever the
form names. ``POST /misbehave`` makes it break a rule from then on, so that tests can show that the rule is checked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
import time
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID = "taximeter"
CLIENT_SECRET = "secret of the client"


class Provider:
    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.keys = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})]
        self.codes: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Any] = {}
        self.asked: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.asked[what] = self.asked.get(what, 0) + 1

    async def discovery(self, _request: Request) -> Response:
        self.count("discovery")
        found = {
            "issuer": self.faults.get("issuer", self.issuer),
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/end",
        }
        return JSONResponse(found)

    async def jwks(self, _request: Request) -> Response:
        self.count("jwks")
        if self.faults.get("jwks") == "error":
            return Response("no", 500)
        if self.faults.get("jwks") == "large":
            return Response(b'{"keys": [' + b" " * 400_000 + b"]}")
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if asked.get("client_id") != CLIENT_ID or asked.get("response_type") != "code":
            return Response("bad client", 400)
        if asked.get("code_challenge_method") != "S256" or "openid" not in asked.get("scope", "").split():
            return Response("PKCE and openid are required", 400)
        if request.method == "GET":
            return HTMLResponse(
                '<form method="post"><input name="sub"><input name="claims"><button>Sign in</button></form>'
            )
        form = await request.form()
        code = secrets.token_urlsafe(16)
        self.codes[code] = {**asked, "sub": str(form["sub"]), "claims": json.loads(str(form.get("claims") or "{}"))}
        answer = {"code": code, "state": asked["state"], "iss": self.faults.get("answer_iss", self.issuer)}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return JSONResponse({"error": "invalid_client"}, 401)
        grant = self.codes.pop(str(form.get("code")), None)  # a code works once
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            grant is None
            or grant["code_challenge"] != challenge
            or grant["redirect_uri"] != form.get("redirect_uri")
            or form.get("grant_type") != "authorization_code"
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": grant["sub"],
            "iat": now,
            "exp": now + 300,
            "nonce": grant.get("nonce"),
        }
        in_token = self.faults.get("claims_in") != "userinfo"
        claims |= (grant["claims"] if in_token else {}) | self.faults.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        key = RSAKey.generate_key(2048, {"kid": "first"}) if self.faults.get("key") == "other" else self.keys[-1]
        access_token = secrets.token_urlsafe(16)
        self.tokens[access_token] = {"sub": self.faults.get("userinfo_sub", grant["sub"]), **grant["claims"]}
        id_token = jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)
        return JSONResponse({"access_token": access_token, "token_type": "Bearer", "id_token": id_token})

    async def userinfo(self, request: Request) -> Response:
        self.count("userinfo")
        found = self.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        return JSONResponse(found or {}, 200 if found else 401)

    async def end(self, request: Request) -> Response:
        return RedirectResponse(request.query_params["post_logout_redirect_uri"], 303)

    async def misbehave(self, request: Request) -> Response:
        self.faults = await request.json()
        if self.faults.pop("rotate", False):
            self.keys = [RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})]
        return JSONResponse(self.asked)

    async def sign(self, request: Request) -> Response:
        """Sign any claims, as the host platform would."""
        key = self.keys[-1]
        return JSONResponse({"token": jwt.encode({"alg": "RS256", "kid": key.kid}, await request.json(), key)})


def make_app(port: int) -> Starlette:
    provider = Provider(port)
    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", provider.discovery),
            Route("/jwks", provider.jwks),
            Route("/authorize", provider.authorize, methods=["GET", "POST"]),
            Route("/token", provider.token, methods=["POST"]),
            Route("/userinfo", provider.userinfo),
            Route("/end", provider.end),
            Route("/misbehave", provider.misbehave, methods=["POST"]),
            Route("/sign", provider.sign, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    import socket

    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen()
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(make_app(port), log_level="error")).run(sockets=[listener])
