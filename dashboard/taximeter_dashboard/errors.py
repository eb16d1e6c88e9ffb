"""Errors of the dashboard.

DashboardError
├── SettingError       a setting that is missing or makes no sense
├── FetchError         a document of another server could not be had
├── ExportEnded        an export was called off while it streamed
└── Problem            an answer other than 2xx, told to the client as RFC 9457 problem details
    ├── SignInNeeded   401: nobody is signed in, or the token does not hold
    ├── Forbidden      403
    ├── NotFound       404: absent, or somebody else's; the two are not to be told apart
    ├── Unavailable    503: the database does not answer
    └── SignInUnavailable  503: the server that vouches for people does not answer
"""

from __future__ import annotations

from collections.abc import Mapping


class DashboardError(Exception):
    """Root of every error that this package raises itself."""


class SettingError(DashboardError, ValueError):
    """A setting that is missing or makes no sense; the sentence names the variable."""


class Problem(DashboardError):  # noqa: N818 - an answer, said as one
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


class SignInNeeded(Problem):
    """Nobody is signed in, or the token does not hold."""

    status = 401
    title = "Sign in needed"


class Forbidden(Problem):
    """The viewer is known and may not do this."""

    status = 403
    title = "Not allowed"

    def __init__(self, detail: str = "Only the owner and people they allow can see this.") -> None:
        super().__init__(detail)


class NotFound(Problem):
    """Absent, or somebody else's."""

    status = 404
    title = "Not found"

    def __init__(
        self, detail: str = "There is nothing here. The address may be mistyped, or be another account's."
    ) -> None:
        super().__init__(detail)


class Unavailable(Problem):
    """The database does not answer."""

    status = 503
    title = "Not available"

    def __init__(self) -> None:
        super().__init__("The ledger cannot be reached at the moment. Nothing is lost; try again.")


class SignInUnavailable(Problem):
    """The server that vouches for people does not answer."""

    status = 503
    title = "Not available"

    def __init__(self) -> None:
        super().__init__("The sign-in service cannot be reached at the moment. Try again.")


class FetchError(DashboardError):
    """A document of another server could not be had; the sentence holds no secret."""


class ExportEnded(DashboardError):  # noqa: N818 - somebody's wish, no fault
    """An export was called off; raised where it streams, so that its connection breaks."""
