"""What a vendor's `error_uri` says, where it says it in a form that is safe to keep (CB-04, OR-03)."""

import re
from typing import Final
from urllib.parse import unquote

_LONGEST: Final = 4096
_CODE: Final = re.compile(r"(?:^|/)(urn:[a-z]{2,31}:error(?::[a-z][a-z0-9_-]{0,40}){1,6})(?:$|[/?#])")


def ehr_error_code(error_uri: str | None) -> str | None:
    """Return the URN that names the error, such as Oracle's `urn:cerner:error:…:unknown-tenant`; None without one.

    The URI is never fetched and never shown. A URN of this pattern is made of short words in lower case, so it has no
    room for a person's data; the instance id that follows it is left out.
    """
    found = _CODE.search(unquote(error_uri)) if error_uri is not None and len(error_uri) <= _LONGEST else None
    return found[1] if found else None
