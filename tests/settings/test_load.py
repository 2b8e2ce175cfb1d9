from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.settings import Access, load
from tests.settings.files import CANARY, ENVIRON, GOOD, HASH, faults_of, load_text, spoiled

UNKNOWN = "unknown key 'colour'. Fix: remove it, or see docs/configuration.md for the known ones"
LITERAL = "a secret never stands in the file itself. Fix: write env:NAME or file:PATH"
SECRET_PAIR = "client_secret is needed with authentication = 'client_secret_basic' or '…_post', and only with them"
SECRET_TABLE = f'[[app.secret]]\nhash = "{HASH}"\nexpires = 2027-02-01\n'
ONE_KEY_SET = "authentication = 'private_key_jwt' needs exactly one of jwks, jwks_uri"
METHODS = (
    "'none', 'client_secret_basic', 'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth' "
    "or 'workload_identity'"
)
TOO_FAR = "is more than 400 days ahead. Fix: a nearer date, and a new secret before it"
NO_ZONE = "a time needs its zone: write Z behind it for UTC"
NO_DATE = "must be a date or time of TOML, without quotes: expires = 2027-02-01"
PUBLIC_KEYS = "must be a JWK Set of public RSA or EC keys; a private key never stands in this file"
SAME_BASE = "two EHRs have this FHIR base; a launch could not tell them apart (AL-02)"
NOT_A_URL = "must be an absolute https URL without user name or password"
NOT_AN_ORIGIN = "must be an origin, as browsers write it: https://host or https://host:port"
NOT_ASCII = "must be ASCII: a host name in other letters is written as xn--…, a path percent-encoded"
NOT_IN_A_URL = "must have no fragment, blanks or characters that a URL cannot hold"
IDENTIFIER = "String should match pattern '^[a-z0-9][a-z0-9._-]{0,62}$'"
NO_LIST = "must be a list; a table that there can be several of is written with two brackets: [[ehr]]"
PLAIN = "is plain http: tokens would travel readable (TK-08)"
BASE = 'public_url = "https://broker.example"'
ACCESS_SCOPES = 'scopes = "patient/Observation.rs patient/Patient.r"'
SECRET = 'client_secret = "env:CERNER_SECRET"'


def test_a_good_file_is_read(tmp_path: Path) -> None:
    settings = load_text(tmp_path, GOOD)
    epic, cerner = settings.ehr
    growth, nightly = settings.app

    assert (settings.public_url, settings.tenant) == ("https://broker.example", "clinic")
    assert (epic.fhir_base, epic.profile.refresh_tokens, epic.token_timeout) == (
        "https://epic.example/fhir/R4",
        "rotating",
        10,
    )
    assert (cerner.profile.refresh_tokens, cerner.token_timeout, cerner.fhir_timeout) == ("reusable", 5, 60)
    assert [registration.signing_algorithm for registration in settings.registration] == ["ES384", "RS384", "ES384"]
    assert settings.registration[2].client_secret == (Secret(CANARY),)
    assert growth.access == (
        Access(registration="epic-launch", scopes="patient/Observation.rs patient/Patient.r"),
        Access(registration="cerner-launch", scopes="patient/Observation.rs"),
    )
    (secret,) = nightly.secret
    assert (secret.name, secret.hash, secret.expires_at) == ("0" * 8, HASH, 1_801_440_000.0)
    assert (nightly.handle_lifetime, nightly.refresh_lifetime) == (60, 28_800)


def test_loopback_over_http_is_accepted_only_if_allowed(tmp_path: Path) -> None:
    local = spoiled("https://epic.example/fhir/R4/", "http://127.0.0.1:9400/fhir")
    allowed = local.replace("tenant", "allow_loopback_http = true\ntenant")

    assert load_text(tmp_path, allowed).ehr[0].fhir_base == "http://127.0.0.1:9400/fhir"
    assert "Fix: set allow_loopback_http = true" in faults_of(tmp_path, local)[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fhir.hospital.internal", "fhir.hospital.internal"),
        ("FHIR.Hospital.internal.", "fhir.hospital.internal"),
        ("10.0.0.5", "10.0.0.5"),
        ("fd12:0:0::1", "fd12::1"),
    ],
)
def test_private_hosts_are_named_one_by_one(tmp_path: Path, written: str, meant: str) -> None:
    """(DS-15)"""
    text = GOOD.replace("tenant", f'allow_private_hosts = ["{written}"]\ntenant')

    assert load_text(tmp_path, text).allow_private_hosts == (meant,)


@pytest.mark.parametrize(
    "host", ["*.internal", "10.0.0.0/8", "https://a.internal", "a.internal:443", "", "a b", "169.254.169.254", "::"]
)
def test_no_range_and_no_address_of_a_clouds_own_credentials_is_a_private_host(tmp_path: Path, host: str) -> None:
    """(DS-15)"""
    (fault,) = faults_of(tmp_path, GOOD.replace("tenant", f'allow_private_hosts = ["{host}"]\ntenant'))

    assert "2: allow_private_hosts[1]: " in fault


def test_allowed_loopback_allows_no_other_host(tmp_path: Path) -> None:
    text = spoiled("https://epic.example", "http://127.0.0.1.evil.example")

    (fault,) = faults_of(tmp_path, text.replace("tenant", "allow_loopback_http = true\ntenant"))

    assert fault.endswith("is plain http: tokens would travel readable (TK-08). Fix: use https")


BAD = [
    ('tenant = "clinic"', 'tenant = "clinic"\ncolour = 1', f"3: colour: {UNKNOWN}"),
    ('name = "Epic"', "colour = 1", f"6: ehr[1].colour: {UNKNOWN}"),
    ('signing_algorithm = "RS384"', "colour = 1", f"29: registration[2].colour: {UNKNOWN}"),
    ('name = "Growth chart"', "colour = 1", f"43: app[1].colour: {UNKNOWN}"),
    (ACCESS_SCOPES, f"{ACCESS_SCOPES}\ncolour = 1", f"51: app[1].access[1].colour: {UNKNOWN}"),
    ('[[app]]\nid = "nightly"', '[colour]\n[[app]]\nid = "nightly"', f"56: colour: {UNKNOWN}"),
    ('[[app]]\nid = "nightly"', '[[colour]]\n[[app]]\nid = "nightly"', f"56: colour: {UNKNOWN}"),
    (BASE, "", "1: public_url: is missing"),
    ('id = "epic"\n', "", "4: ehr[1].id: is missing"),
    ('fhir_base = "https://cerner.example/r4"\n', "", "9: ehr[2].fhir_base: is missing"),
    ('id = "epic-backend"\n', "", "24: registration[2].id: is missing"),
    ('flow = "backend"\n', "", "24: registration[2].flow: is missing"),
    ('client_id = "broker-backend"\n', "", "24: registration[2].client_id: is missing"),
    ('scopes = "system/Patient.rs"\n\n', "", "24: registration[2].scopes: is missing"),
    ('id = "nightly"\n', "", "56: app[2].id: is missing"),
    ('authentication = "none"\n', "", "41: app[1].authentication: is missing"),
    ('registration = "epic-backend"\n', "", "65: app[2].access[1].registration: is missing"),
    ('ehr = "cerner"', 'ehr = "x"', "34: registration[3].ehr: there is no EHR 'x'; defined: cerner, epic"),
    ('app = "growth"', 'app = "x"', "22: registration[1].app: there is no app 'x'; defined: growth, nightly"),
    (
        'registration = "epic-backend"',
        'registration = "x"',
        (
            "66: app[2].access[1].registration: there is no registration 'x'; "
            "defined: cerner-launch, epic-backend, epic-launch"
        ),
    ),
    (
        ACCESS_SCOPES,
        'scopes = "patient/Observation.cruds user/*.r patient/Patient.r"',
        (
            "50: app[1].access[1].scopes: patient/Observation.cruds user/*.r is more than registration 'epic-launch' "
            "may ask the EHR for"
        ),
    ),
    *(
        (
            ACCESS_SCOPES,
            f'{ACCESS_SCOPES}\noperations = ["$graphql", "{name}"]',
            f"51: app[1].access[1].operations[2]: {why}",
        )
        for name, why in [
            ("graphql", "must be an operation, as $name or Type/$name"),
            ("observation/$stats", "must be an operation, as $name or Type/$name"),
            ("Observation/1/$stats", "must be an operation, as $name or Type/$name"),
            ("$Stats", "must be an operation, as $name or Type/$name"),
            ("$export", "$export is nothing that an operator names: what it needs are scopes. Fix: remove it"),
            (
                "Patient/$everything",
                "Patient/$everything is nothing that an operator names: what it needs are scopes. Fix: remove it",
            ),
            ("Task/$meta", "Task/$meta is nothing that an operator names: what it needs are scopes. Fix: remove it"),
        ]
    ),
    (ACCESS_SCOPES, 'scopes = ""', "50: app[1].access[1].scopes: scopes is empty: this access allows nothing"),
    (
        ACCESS_SCOPES,
        'scopes = "patient/Patient.sr"',
        "50: app[1].access[1].scopes: malformed scope 'patient/Patient.sr'",
    ),
    (
        ACCESS_SCOPES,
        f'scopes = "patient/Observation.rs?code={",".join("x" * 65)}"',
        "50: app[1].access[1].scopes: more than 64 alternatives in one value",
    ),
    (
        'scopes = "launch openid fhirUser offline_access patient/*.rs"',
        'scopes = " "',
        "16: registration[1]: scopes is empty: a registration without scopes can get no token",
    ),
    (SECRET, f'client_secret = "{CANARY}"', f"38: registration[3].client_secret: {LITERAL}"),
    (SECRET, f'client_secret = "vault:{CANARY}"', f"38: registration[3].client_secret: {LITERAL}"),
    (SECRET, "client_secret = 5", f"38: registration[3].client_secret: {LITERAL}"),
    (SECRET, 'client_secret = "env:NO"', "38: registration[3].client_secret: env:NO is empty or not set"),
    (SECRET, 'client_secret = "env:"', "38: registration[3].client_secret: env: is empty or not set"),
    (
        SECRET,
        'client_secret = "file:no"',
        "38: registration[3].client_secret: no does not exist. Fix: name a file that holds the secret",
    ),
    (f"{SECRET}\n", "", f"32: registration[3]: {SECRET_PAIR}"),
    ('signing_algorithm = "RS384"', SECRET, f"24: registration[2]: {SECRET_PAIR}"),
    (
        'signing_algorithm = "RS384"',
        f'authentication = "client_secret_basic"\n{SECRET}',
        (
            "24: registration[2]: flow = 'backend' is not meant for secrets (RG-09). Fix: authentication = "
            "'private_key_jwt', or secret_for_backend = true where the vendor wants one"
        ),
    ),
    (
        'signing_algorithm = "RS384"',
        'app = "growth"',
        "24: registration[2]: app belongs to flow = 'launch'; a backend registration is never launched",
    ),
    (SECRET_TABLE, "", "56: app[2]: authentication = 'client_secret_basic' needs secret"),
    (
        'launch_uri = "https://growth.example/launch"\n',
        f'launch_uri = "https://growth.example/launch"\n\n{SECRET_TABLE}',
        "41: app[1]: secret does not go with authentication = 'none'",
    ),
    (
        "handle_lifetime = 60",
        f'secret_hash = "{HASH}"',
        "56: app[2]: secret_hash has become a table. Fix: put what `broker apps secret` prints, [[app.secret]]",
    ),
    (HASH, CANARY, "62: app[2].secret[1].hash: String should match pattern '^sha256:[0-9a-f]{64}$'"),
    (HASH, HASH.upper(), "62: app[2].secret[1].hash: String should match pattern '^sha256:[0-9a-f]{64}$'"),
    (SECRET_TABLE, SECRET_TABLE * 2, "56: app[2]: two secrets have the same id or the same hash"),
    (
        SECRET_TABLE,
        SECRET_TABLE * 3,
        "61: app[2].secret: Tuple should have at most 2 items after validation, not 3",
    ),
    ("expires = 2027-02-01\n", "", "61: app[2].secret[1].expires: is missing"),
    ("expires = 2027-02-01", "expires = 2027-12-29", f"63: app[2].secret[1].expires: {TOO_FAR}"),
    ("expires = 2027-02-01", "expires = 2027-12-28T00:00:01Z", f"63: app[2].secret[1].expires: {TOO_FAR}"),
    ("expires = 2027-02-01", "expires = 2027-02-01T00:00:00", f"63: app[2].secret[1].expires: {NO_ZONE}"),
    ("expires = 2027-02-01", 'expires = "2027-02-01"', f"63: app[2].secret[1].expires: {NO_DATE}"),
    ("expires = 2027-02-01", "expires = 1801440000", f"63: app[2].secret[1].expires: {NO_DATE}"),
    ('authentication = "none"', 'authentication = "private_key_jwt"', f"41: app[1]: {ONE_KEY_SET}"),
    (
        'authentication = "none"',
        'authentication = "private_key_jwt"\njwks_uri = "https://a.example"\njwks = { keys = [{ kty = "EC" }] }',
        f"41: app[1]: {ONE_KEY_SET}",
    ),
    (
        'authentication = "none"',
        'authentication = "none"\njwks_uri = "https://a.example"',
        "41: app[1]: jwks_uri does not go with authentication = 'none'",
    ),
    (
        'name = "Growth chart"',
        f'jwks = {{ keys = [{{ kty = "EC", d = "{CANARY}" }}] }}',
        f"43: app[1].jwks: {PUBLIC_KEYS}",
    ),
    (
        'name = "Growth chart"',
        f'jwks = {{ keys = [{{ kty = "oct", k = "{CANARY}" }}] }}',
        f"43: app[1].jwks: {PUBLIC_KEYS}",
    ),
    ('name = "Growth chart"', "jwks = { keys = [] }", f"43: app[1].jwks: {PUBLIC_KEYS}"),
    ('name = "Growth chart"', "jwks = {}", f"43: app[1].jwks: {PUBLIC_KEYS}"),
    (
        'authentication = "none"',
        'authentication = "client_secret_post"',
        f"44: app[1].authentication: Input should be {METHODS}",
    ),
    (
        'redirect_uris = ["https://growth.example/callback"]\n',
        "",
        "42: app[1].id: app 'growth' uses a launch registration but has no redirect_uris",
    ),
    (
        f'authentication = "client_secret_basic"\nhandle_lifetime = 60\n\n{SECRET_TABLE}',
        'authentication = "none"\n',
        "61: app[2].access[1].registration: app 'nightly' proves nothing, so it cannot use a backend registration",
    ),
    (
        'registration = "cerner-launch"',
        'registration = "epic-launch"',
        "48: app[1].access: one registration is named twice",
    ),
    (
        "handle_lifetime = 60",
        'exchange_from = ["nobody"]',
        "59: app[2].exchange_from: there is no app 'nobody'; defined: growth, nightly",
    ),
    (
        "handle_lifetime = 60",
        'exchange_from = ["nightly"]',
        "59: app[2].exchange_from: an app may always exchange its own handles",
    ),
    (
        'name = "Growth chart"',
        'exchange_from = ["nightly"]',
        "43: app[1].exchange_from: app 'growth' proves nothing, so nobody can say that it is the one who acts",
    ),
    (
        "handle_lifetime = 60",
        "refresh_grace = 61",
        "59: app[2].refresh_grace: Input should be less than or equal to 60",
    ),
    (
        "handle_lifetime = 60",
        "handle_lifetime = 9",
        "59: app[2].handle_lifetime: Input should be greater than or equal to 10",
    ),
    ("token_timeout = 5", "token_timeout = nan", "13: ehr[2].token_timeout: Input should be less than or equal to 30"),
    ("token_timeout = 5", "token_timeout = inf", "13: ehr[2].token_timeout: Input should be less than or equal to 30"),
    ('id = "nightly"', 'id = "night}ly"', f"57: app[2].id: {IDENTIFIER}"),
    ('id = "nightly"', 'id = "nightly\\n"', f"57: app[2].id: {IDENTIFIER}"),
    ('id = "nightly"', 'id = "../nightly"', f"57: app[2].id: {IDENTIFIER}"),
    (BASE, 'public_url = "ftp://broker.example"', f"1: public_url: {NOT_A_URL}"),
    (BASE, f'public_url = "https://me:{CANARY}@broker.example"', f"1: public_url: {NOT_A_URL}"),
    (BASE, 'public_url = "https://@broker.example"', f"1: public_url: {NOT_A_URL}"),
    (BASE, 'public_url = "https://broker.example:0"', f"1: public_url: {NOT_A_URL}"),
    (BASE, 'public_url = "https:///"', f"1: public_url: {NOT_A_URL}"),
    (BASE, 'public_url = "https://broker.example?a=1"', "1: public_url: must have no query"),
    (BASE, 'public_url = "https://broker.example/#a"', f"1: public_url: {NOT_IN_A_URL}"),
    (BASE, 'public_url = "https://broker.example/a b"', f"1: public_url: {NOT_IN_A_URL}"),
    (BASE, 'public_url = "https://brökër.example"', f"1: public_url: {NOT_ASCII}"),
    (BASE, "public_url = 5", "1: public_url: Input should be a valid string"),
    (BASE, 'public_url = "http://broker.example"', f"1: public_url: http://broker.example {PLAIN}. Fix: use https"),
    (
        "https://epic.example/fhir/R4/",
        "http://10.0.0.1/r4",
        f"7: ehr[1].fhir_base: http://10.0.0.1/r4 {PLAIN}. Fix: use https",
    ),
    (
        "https://growth.example/callback",
        "http://localhost/callback",
        f"45: app[1].redirect_uris: http://localhost/callback {PLAIN}. Fix: set allow_loopback_http = true",
    ),
    *(
        (
            'launch_uri = "https://growth.example/launch"\n',
            f'launch_uri = "https://growth.example/launch"\norigins = ["{origin}"]\n',
            f"47: app[1].origins[1]: {NOT_AN_ORIGIN}",
        )
        for origin in ("https://growth.example/", "https://Growth.example", "https://growth.example:443")
    ),
    (
        'launch_uri = "https://growth.example/launch"\n',
        'launch_uri = "https://growth.example/launch"\norigins = ["*"]\n',
        f"47: app[1].origins[1]: {NOT_A_URL}",
    ),
    (
        'launch_uri = "https://growth.example/launch"\n',
        'launch_uri = "https://growth.example/launch"\norigins = ["http://growth.example"]\n',
        f"47: app[1].origins: http://growth.example {PLAIN}. Fix: use https",
    ),
    (
        "https://growth.example/launch",
        "http://growth.example/launch",
        f"46: app[1].launch_uri: http://growth.example/launch {PLAIN}. Fix: use https",
    ),
]


@pytest.mark.parametrize(("old", "new", "fault"), BAD)
def test_a_bad_file_is_refused_with_line_place_and_fix(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """EP-12, RG-09, TK-08."""
    assert faults_of(tmp_path, spoiled(old, new)) == [f"broker.toml:{fault}"]


@pytest.mark.parametrize(("old", "new", "fault"), [row for row in BAD if CANARY in row[1]])
def test_no_fault_quotes_a_secret(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert CANARY not in "".join(faults_of(tmp_path, spoiled(old, new)))


def test_a_fault_beside_a_good_secret_does_not_quote_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_text(tmp_path, spoiled('ehr = "cerner"', 'colour = "red"'))

    assert len(raised.value.faults) == 2
    assert CANARY not in f"{raised.value!r} {raised.value.__cause__!r}"


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (
            'id = "cerner"',
            'id = "epic"',
            [
                "5: ehr[1].id: ehr 'epic' is defined more than once",
                "10: ehr[2].id: ehr 'epic' is defined more than once",
                "34: registration[3].ehr: there is no EHR 'cerner'; defined: epic",
            ],
        ),
        (
            'id = "cerner-launch"',
            'id = "epic-launch"',
            [
                "17: registration[1].id: registration 'epic-launch' is defined more than once",
                "33: registration[3].id: registration 'epic-launch' is defined more than once",
                (
                    "50: app[1].access[1].scopes: patient/Patient.r is more than registration 'epic-launch' "
                    "may ask the EHR for"
                ),
                (
                    "53: app[1].access[2].registration: there is no registration 'cerner-launch'; "
                    "defined: epic-backend, epic-launch"
                ),
            ],
        ),
        (
            'app = "growth"',
            'app = "nightly"',
            [
                "22: registration[1].app: app 'nightly' has no launch_uri, so an EHR launch has nowhere to go",
                "22: registration[1].app: app 'nightly' has no [[app.access]] for registration 'epic-launch'",
            ],
        ),
        (
            "https://cerner.example/r4",
            "https://epic.example/fhir/R4",
            [f"7: ehr[1].fhir_base: {SAME_BASE}", f"11: ehr[2].fhir_base: {SAME_BASE}"],
        ),
        (
            'name = "Epic"',
            'aliases = ["https://cerner.example/r4", "http://epic.internal/r4"]',
            [
                (
                    "6: ehr[1].aliases: https://cerner.example/r4 is the FHIR base of an EHR; "
                    "its resources would be taken for this one's"
                ),
            ],
        ),
        (
            'ehr = "cerner"',
            'ehr = "epic"',
            ["53: app[1].access[2].registration: a second launch registration for EHR 'epic'"],
        ),
    ],
)
def test_tables_that_contradict_each_other_are_refused(tmp_path: Path, old: str, new: str, faults: list[str]) -> None:
    """AL-02."""
    assert faults_of(tmp_path, spoiled(old, new)) == [f"broker.toml:{fault}" for fault in faults]


def test_two_apps_of_one_name_are_refused(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, spoiled('id = "nightly"', 'id = "growth"'))

    assert faults[:2] == [
        "broker.toml:42: app[1].id: app 'growth' is defined more than once",
        "broker.toml:57: app[2].id: app 'growth' is defined more than once",
    ]


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    text = f"""\
public_url = "ftp://broker.example"
colour = 1
ehr = 1
[[registration]]
id = "a"
ehr = "b"
flow = "launch"
authentication = "client_secret_basic"
client_secret = "{CANARY}"
client_id = ""
scopes = "patient/Patient.sr"
[[app]]
id = "A"
"""

    assert faults_of(tmp_path, text) == [
        f"broker.toml:9: registration[1].client_secret: {LITERAL}",
        f"broker.toml:1: public_url: {NOT_A_URL}",
        f"broker.toml:3: ehr: {NO_LIST}",
        "broker.toml:10: registration[1].client_id: String should have at least 1 character",
        "broker.toml:11: registration[1].scopes: malformed scope 'patient/Patient.sr'",
        f"broker.toml:13: app[1].id: {IDENTIFIER}",
        "broker.toml:12: app[1].authentication: is missing",
        f"broker.toml:2: colour: {UNKNOWN}",
    ]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["1: public_url: is missing", "1: ehr: is missing", "1: registration: is missing"]),
        (
            f"{BASE}\nehr = []\nregistration = []\n",
            ["2: ehr: at least one [[ehr]] is needed", "3: registration: at least one [[registration]] is needed"],
        ),
        (f"{BASE}\n[ehr]\n[registration]\n", [f"2: ehr: {NO_LIST}", f"3: registration: {NO_LIST}"]),
    ],
)
def test_an_empty_or_misshapen_file_is_refused(tmp_path: Path, text: str, faults: list[str]) -> None:
    assert faults_of(tmp_path, text) == [f"broker.toml:{fault}" for fault in faults]


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    assert faults_of(tmp_path, "public_url = ") == ["broker.toml: not TOML: Invalid value (at end of document)"]


def test_a_missing_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist\. Fix: give --config, or set BROKER_CONFIG"):
        load(tmp_path / "broker.toml", {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_bytes(b"\xff")

    with pytest.raises(ConfigurationError, match=r"cannot be read \(UnicodeDecodeError\)"):
        load(tmp_path / "broker.toml", {})


@pytest.mark.parametrize("content", [CANARY, f"{CANARY}\n", f"{CANARY}\r\n"])
def test_a_secret_file_is_read_beside_the_settings_without_its_line_end(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_bytes(content.encode())

    settings = load_text(tmp_path, spoiled(SECRET, 'client_secret = "file:secret"'), {})

    assert settings.registration[2].client_secret == (Secret(CANARY),)


def test_settings_do_not_show_a_secret(tmp_path: Path) -> None:
    settings = load_text(tmp_path, GOOD)

    assert CANARY not in f"{settings!r} {settings} {settings.registration[2].model_dump()}"


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load_text(tmp_path, GOOD, ENVIRON)

    with pytest.raises(ValueError, match="frozen"):
        settings.public_url = "https://evil.example"


@pytest.mark.parametrize(
    ("uri", "origin"),
    [
        ("https://growth.example/callback", "https://growth.example"),
        ("https://GROWTH.example:443/Callback", "https://growth.example"),
        ("https://growth.example:8443/callback?a=b", "https://growth.example:8443"),
        ("https://[2001:db8::1]/callback", "https://[2001:db8::1]"),
    ],
)
def test_an_apps_pages_are_those_of_its_redirect_uris_unless_said_otherwise(
    tmp_path: Path, uri: str, origin: str
) -> None:
    """CO-01: an origin as browsers write it, lower case and without the default port."""
    text = GOOD.replace("https://growth.example/callback", uri)
    said = 'launch_uri = "https://growth.example/launch"\n'

    assert load_text(tmp_path, text).app[0].browser_origins == (origin,)
    named = text.replace(said, said + 'origins = ["https://pages.example"]\n')
    assert load_text(tmp_path, named).app[0].browser_origins == ("https://pages.example",)
    assert load_text(tmp_path, text.replace(said, said + "origins = []\n")).app[0].browser_origins == ()


PEM = "-----BEGIN CERTIFICATE-----\n"
OF_EPIC = 'name = "Epic"'


def test_an_ehr_names_the_files_that_tls_with_its_hosts_goes_by(tmp_path: Path) -> None:
    """(TK-08, OA-19)"""
    for name in ("ca.pem", "own.pem", "own-key.pem"):
        (tmp_path / name).write_text(PEM)
    said = [
        OF_EPIC,
        'ca_file = "ca.pem"',
        'certificate = "file:own.pem"',
        'certificate_key = "file:own-key.pem"',
        'tls_hosts = ["SSO.epic.example."]',
        'token_endpoint = "https://login.epic.example:8443/token"',
    ]

    epic, cerner = load_text(tmp_path, spoiled(OF_EPIC, "\n".join(said))).ehr

    assert epic.tls_files == tuple(tmp_path / name for name in ("ca.pem", "own.pem", "own-key.pem"))
    assert epic.hosts == {"epic.example", "sso.epic.example", "login.epic.example"}
    assert cerner.tls_files == (None, None, None)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (OF_EPIC, 'ca_file = "none.pem"', "6: ehr[1].ca_file: none.pem does not exist. Fix: name a file that holds"),
        (
            OF_EPIC,
            'certificate = "own.pem"\ncertificate_key = "file:own.pem"',
            "6: ehr[1].certificate: a certificate and its key stand in files",
        ),
        (OF_EPIC, 'certificate = "file:own.pem"', "4: ehr[1]: certificate and certificate_key are needed together"),
        (OF_EPIC, 'tls_hosts = ["sso.epic.example"]', "4: ehr[1]: tls_hosts belongs to ca_file"),
        (OF_EPIC, 'ca_file = "own.pem"\ntls_hosts = ["*.epic.example"]', "7: ehr[1].tls_hosts[1]: must be one host"),
        (
            "https://cerner.example/r4",
            'https://epic.example/other"\nca_file = "own.pem',
            "12: ehr[2].ca_file: host epic.example is also EHR 'epic''s. Fix: the same ca_file",
        ),
    ],
    ids=["no file", "no reference", "half", "hosts of nothing", "wildcard", "two at one host"],
)
def test_what_tls_cannot_go_by_is_refused_at_start(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """(TK-08)"""
    (tmp_path / "own.pem").write_text(PEM)

    (found,) = faults_of(tmp_path, spoiled(old, new))

    assert found.removeprefix("broker.toml:").startswith(fault)
