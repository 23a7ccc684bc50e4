"""An SROS 2 keystore of config/security/policy.xml, for tests where the package sros2 is missing.

The same as `ros2 security generate_artifacts -k DIR -p config/security/policy.xml`, with nothing
but Python and the openssl program: an authority, and for each enclave a key, a certificate, and
permissions signed by the authority.
"""

from __future__ import annotations

import datetime
import secrets
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "config" / "security" / "policy.xml"
_SCHEMA = "http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_{}.xsd"
_CURVE = "prime256v1"  # DDS Security 9.3.1
_SUBJECT = "/CN={}"
_VALID_DAYS = 3650

#: ROS name -> DDS topics, (kind, role) of a policy's element -> (those written, those read).
_Names = tuple[tuple[str, ...], tuple[str, ...]]
_ASKED = tuple(f"/_action/{name}" for name in ("send_goal", "get_result", "cancel_goal"))
_TOLD = ("rt{}/_action/feedback", "rt{}/_action/status")
_REQUESTS = tuple("rq{}" + name + "Request" for name in _ASKED)
_REPLIES = tuple("rr{}" + name + "Reply" for name in _ASKED)
DDS_NAMES: dict[tuple[str, str], _Names] = {
    ("topics", "publish"): (("rt{}",), ()),
    ("topics", "subscribe"): ((), ("rt{}",)),
    ("services", "request"): (("rq{}Request",), ("rr{}Reply",)),
    ("services", "reply"): (("rr{}Reply",), ("rq{}Request",)),
    ("actions", "call"): (_REQUESTS, (*_REPLIES, *_TOLD)),
    ("actions", "execute"): ((*_REPLIES, *_TOLD), _REQUESTS),
}
_DISCOVERY = "ros_discovery_info"  # of every ROS 2 node


def rules(enclave: ET.Element) -> Iterator[tuple[str, list[str], list[str]]]:
    """ALLOW or DENY, DDS topics written, DDS topics read; one for each element of a policy."""
    for profile in enclave.iter("profile"):
        for element in profile:
            for role, qualifier in element.attrib.items():
                written, read = DDS_NAMES[element.tag, role]
                names = [_full_name(item.text or "", profile) for item in element]
                yield (
                    qualifier,
                    [pattern.format(name) for name in names for pattern in written],
                    [pattern.format(name) for name in names for pattern in read],
                )


def _full_name(name: str, profile: ET.Element) -> str:
    namespace = profile.attrib["ns"].rstrip("/") + "/"
    if name.startswith("/"):
        return name
    if name.startswith("~"):
        return namespace + profile.attrib["node"] + name[1:]
    return namespace + name


def permissions(enclave: ET.Element, domain: int) -> str:
    """The DDS permissions of an enclave; what is not allowed is denied."""
    path, now = enclave.attrib["path"], datetime.datetime.now(datetime.timezone.utc)
    root = ET.Element("dds", _schema("permissions"))
    grant = ET.SubElement(ET.SubElement(root, "permissions"), "grant", name=path)
    ET.SubElement(grant, "subject_name").text = f"CN={path}"
    validity = ET.SubElement(grant, "validity")
    for tag, days in (("not_before", -1), ("not_after", _VALID_DAYS)):
        time = now + datetime.timedelta(days=days)
        ET.SubElement(validity, tag).text = time.strftime("%Y-%m-%dT%H:%M:%S")
    allowed = [*rules(enclave), ("ALLOW", [_DISCOVERY], [_DISCOVERY])]
    for qualifier in ("DENY", "ALLOW"):  # the first rule that fits holds
        for _, written, read in (rule for rule in allowed if rule[0] == qualifier):
            rule = ET.SubElement(grant, f"{qualifier.lower()}_rule")
            ET.SubElement(ET.SubElement(rule, "domains"), "id").text = str(domain)
            for tag, names in (("publish", written), ("subscribe", read)):
                if names:
                    topics = ET.SubElement(ET.SubElement(rule, tag), "topics")
                    for name in names:
                        ET.SubElement(topics, "topic").text = name
    ET.SubElement(grant, "default").text = "DENY"
    return _text(root)


def governance(domain: int) -> str:
    """That of sros2: no participant without a certificate, and everything is encrypted."""
    root = ET.Element("dds", _schema("governance"))
    rule = ET.SubElement(ET.SubElement(root, "domain_access_rules"), "domain_rule")
    ET.SubElement(ET.SubElement(rule, "domains"), "id").text = str(domain)
    for tag, value in (
        ("allow_unauthenticated_participants", "false"),
        ("enable_join_access_control", "true"),
        ("discovery_protection_kind", "ENCRYPT"),
        ("liveliness_protection_kind", "ENCRYPT"),
        ("rtps_protection_kind", "SIGN"),
    ):
        ET.SubElement(rule, tag).text = value
    topic = ET.SubElement(ET.SubElement(rule, "topic_access_rules"), "topic_rule")
    for tag, value in (
        ("topic_expression", "*"),
        ("enable_discovery_protection", "true"),
        ("enable_liveliness_protection", "true"),
        ("enable_read_access_control", "true"),
        ("enable_write_access_control", "true"),
        ("metadata_protection_kind", "ENCRYPT"),
        ("data_protection_kind", "ENCRYPT"),
    ):
        ET.SubElement(topic, tag).text = value
    return _text(root)


def _schema(kind: str) -> dict[str, str]:
    return {
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation": _SCHEMA.format(kind),
    }


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def make_keystore(policy: Path, out: Path, domain: int) -> list[str]:
    """Writes the keystore; the authority and keys that are there already stay.

    Returns:
        The paths of its enclaves.
    """
    public, private, enclaves = (out / name for name in ("public", "private", "enclaves"))
    for folder in (public, private, enclaves):
        folder.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    authority, authority_key = public / "ca.cert.pem", private / "ca.key.pem"
    if not authority_key.exists():
        _make_key(authority_key)
        _openssl(
            "req", "-x509", "-new", "-key", authority_key, "-out", authority, "-sha256",
            "-days", _VALID_DAYS, "-subj", _SUBJECT.format("sros2CA"),
        )  # fmt: skip
    for role in ("identity", "permissions"):
        _link(public / f"{role}_ca.cert.pem", Path("ca.cert.pem"))
        _link(private / f"{role}_ca.key.pem", Path("ca.key.pem"))

    def sign(name: Path, text: str) -> None:
        name.with_suffix(".xml").write_text(text)
        _openssl(
            "smime", "-sign", "-text", "-in", name.with_suffix(".xml"), "-out",
            name.with_suffix(".p7s"), "-signer", authority, "-inkey", authority_key,
        )  # fmt: skip

    sign(enclaves / "governance", governance(domain))
    made = []
    for enclave in ET.parse(policy).getroot().iter("enclave"):
        path = enclave.attrib["path"]
        folder = enclaves / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        up = "/".join([".."] * (len(folder.relative_to(out).parts)))
        for role in ("identity", "permissions"):
            _link(folder / f"{role}_ca.cert.pem", Path(up, "public", f"{role}_ca.cert.pem"))
        _link(folder / "governance.p7s", Path(up, "enclaves", "governance.p7s"))
        if not (folder / "key.pem").exists():
            _certify(folder, path, authority, authority_key)
        sign(folder / "permissions", permissions(enclave, domain))
        made.append(path)
    return made


def _certify(folder: Path, path: str, authority: Path, authority_key: Path) -> None:
    _make_key(folder / "key.pem")
    # A subject's slashes are escaped: they separate its fields.
    subject = _SUBJECT.format(path.replace("/", r"\/"))
    request = folder / "request.pem"
    _openssl("req", "-new", "-key", folder / "key.pem", "-out", request, "-subj", subject)
    _openssl(
        "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-sha256",
        "-set_serial", secrets.randbits(120),
        "-days", _VALID_DAYS, "-out", folder / "cert.pem",
    )  # fmt: skip
    request.unlink()


def _make_key(path: Path) -> None:
    path.touch(mode=0o600)
    _openssl(
        "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{_CURVE}", "-out", path
    )
    path.chmod(0o600)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(target)
