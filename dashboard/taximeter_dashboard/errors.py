"""Errors of the dashboard.

DashboardError
├── ClaimError              a verified token does not say who it is, or in which role
├── FetchError              a document of another server could not be had
├── ExportEndedError        an export was cancelled while it streamed
└── ProblemError            an answer other than 2xx, told to the client as RFC 9457 problem details
    ├── SignInNeededError   401: nobody is signed in, or the token does not hold
    ├── ForbiddenError      403
    ├── NotFoundError       404: absent, or somebody else's; the two are not to be told apart
    ├── TooManyRequestsError  429: beyond the rate of the API
    ├── UnavailableError    503: the database does not answer
    └── SignInUnavailableError  503: the server that vouches for people does not answer
"""

from __future__ import annotations

from collections.abc import Mapping


class DashboardError(Exception):
    """Root of every error that this package raises itself."""


class ProblemError(DashboardError):
    """An answer other than 2xx, with a sentence for a person."""

    status = 400
    title = "Bad request"

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = detail
        self.headers = dict(headers or {})
        self.status = status or type(self).status
        self.title = title or type(self).title
        self.number: str | None = None
        super().__init__(detail)


class SignInNeededError(ProblemError):
    """Nobody is signed in, or the token does not hold."""

    status = 401
    title = "Sign in needed"


class ForbiddenError(ProblemError):
    """The viewer is known and may not do this."""

    status = 403
    title = "Not allowed"

    def __init__(self, detail: str = "Only the owner and people they allow can see this.") -> None:
        super().__init__(detail)


class NotFoundError(ProblemError):
    """Absent, or somebody else's."""

    status = 404
    title = "Not found"

    def __init__(
        self, detail: str = "There is nothing here. The address may be mistyped, or be another account's."
    ) -> None:
        super().__init__(detail)


class TooManyRequestsError(ProblemError):
    """More requests than the rate that a caller may have."""

    status = 429
    title = "Too many requests"

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(
            f"Too many requests. Try again in {wait_seconds} second{'' if wait_seconds == 1 else 's'}.",
            headers={"retry-after": str(wait_seconds)},
        )


class UnavailableError(ProblemError):
    """The database does not answer."""

    status = 503
    title = "Not available"

    def __init__(self, detail: str = "The ledger cannot be reached at the moment. Nothing is lost; try again.") -> None:
        super().__init__(detail)


class SignInUnavailableError(ProblemError):
    """The server that vouches for people does not answer."""

    status = 503
    title = "Not available"

    def __init__(self) -> None:
        super().__init__("The sign-in service cannot be reached at the moment. Try again.")


class ClaimError(DashboardError):
    """A claim of a verified token that says nothing of use here; the sentence names it and quotes no value."""

    def __init__(self, claim: str, fault: str) -> None:
        self.claim = claim
        super().__init__(f"the claim {claim} {fault}")


class FetchError(DashboardError):
    """A document of another server could not be had; the sentence holds no secret."""


class ExportEndedError(DashboardError):
    """An export was cancelled; raised where it streams, so that its connection breaks."""
