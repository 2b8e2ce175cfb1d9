"""Scope texts as apps, operators and EHRs write them."""

from itertools import combinations
from typing import Final

from hypothesis import strategies as st

from tests.scopes.oracle import V1

SPELLINGS: Final = (
    ("category=lab|x", "category=lab%7Cx", "%63ategory=lab|x"),
    ("code=a%26b", "code=%61%26b"),
    ("code=c",),
)
LETTERS: Final = tuple("".join(letters) for size in range(1, 6) for letters in combinations("cruds", size))
OTHERS: Final = ("openid", "launch", "launch/patient", "offline_access", "__vendor")


@st.composite
def words_written(draw: st.DrawFn) -> str:
    """Draw one resource scope: v1 or v2, short or as a URI, with up to three search pairs in any spelling."""
    verb = draw(st.sampled_from([*V1, *LETTERS]))
    spelled = () if verb in V1 else draw(st.lists(st.sampled_from(SPELLINGS), max_size=3, unique=True))
    query = "&".join(draw(st.sampled_from(spellings)) for spellings in spelled)
    prefix = draw(st.sampled_from(["", "", "", "http://smarthealthit.org/fhir/scopes/"]))
    level = draw(st.sampled_from(["patient", "user"]))
    type_ = draw(st.sampled_from(["*", "Patient", "Observation"]))
    return f"{prefix}{level}/{type_}.{verb}" + (f"?{query}" if query else "")


words = st.lists(words_written(), max_size=5)
texts = words.map(" ".join)
others = st.frozensets(st.sampled_from(OTHERS))
