"""Choose what holds the keys, from the environment."""

from collections.abc import Iterable, Mapping

from broker.clock import Clock, Entropy, system_clock, system_entropy
from broker.kms.aws import AwsKeys
from broker.kms.aws_server import AwsServer
from broker.kms.aws_signing import AwsSigning
from broker.kms.azure import AzureKeys
from broker.kms.azure_server import AzureServer
from broker.kms.google import GoogleKeys, GoogleServer
from broker.kms.moving import MovingKeys
from broker.kms.signing import NoSigning, RemoteSigning
from broker.kms.transit import TransitKeys
from broker.kms.transit_server import TransitServer, token_reader, transit_egress
from broker.kms.transit_signing import TransitSigning
from broker.settings import RegistrationSettings
from broker.settings.deployment import has_keyring, key_encryption_keys
from broker.settings.kms import KmsSettings, read_kms
from broker.vault.kek import KeyEncryptionKeys


def open_kek(environ: Mapping[str, str], clock: Clock = system_clock) -> KeyEncryptionKeys:
    """Return what `BROKER_KMS` names, or else the local keyring; it connects when it is first asked.

    Where both are given, the service wraps, and the keyring unwraps what it wrapped before. Raises
    `ConfigurationError`.
    """
    settings = read_kms(environ)
    if settings is None:
        return key_encryption_keys(environ)
    service = _opened(settings, clock)
    return MovingKeys(service, key_encryption_keys(environ)) if has_keyring(environ) else service


def open_signing(environ: Mapping[str, str], entropy: Entropy = system_entropy) -> RemoteSigning:
    """Return what signs at the KMS that `BROKER_KMS` names, or what says that nothing does.

    Raises `ConfigurationError`.
    """
    settings = read_kms(environ)
    if settings is not None and settings.kind == "transit":
        return TransitSigning(_transit(settings), settings.prefix, entropy)
    if settings is not None and settings.kind == "awskms":
        return AwsSigning(AwsServer(settings.place, endpoint=settings.endpoint), settings.prefix)
    return NoSigning()


def without_signing(registrations: Iterable[RegistrationSettings], signing: RemoteSigning) -> list[str]:
    """Return a fault for each registration that is to sign at a KMS where none signs."""
    where = 'Fix: BROKER_KMS=transit:… or awskms:…, or signing = "broker"'
    return [
        f'registration {one.id}: signing = "kms", and no key-management service is configured that signs. {where}'
        for one in registrations
        if one.signing == "kms" and isinstance(signing, NoSigning)
    ]


def _opened(settings: KmsSettings, clock: Clock) -> KeyEncryptionKeys:
    place, prefix, may_create = settings.place, settings.prefix, settings.may_create
    if settings.kind == "transit":
        return TransitKeys(_transit(settings), prefix, clock)
    if settings.kind == "awskms":
        server = AwsServer(place, endpoint=settings.endpoint)
        return AwsKeys(server, prefix, clock, may_create, settings.deletion_days)
    if settings.kind == "gcpkms":
        return GoogleKeys(GoogleServer(), place, prefix, clock, may_create)
    return AzureKeys(AzureServer(place), prefix, clock, may_create)


def _transit(settings: KmsSettings) -> TransitServer:
    reader = token_reader(settings.token, settings.token_file)
    return TransitServer(settings.place, reader, transit_egress(settings.place, settings.ca_file), settings.namespace)
