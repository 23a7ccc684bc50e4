"""SROS 2: the policy allows what the nodes do, and nobody else gets anything.

Three ways, because few machines have all of it: the policy against the names that live nodes use;
its keystore under the DDS Security of Debian's Fast DDS, where that is installed; and our nodes
themselves, where ROS 2's middleware was built with security (apt's is, that of the wheels is not).
"""

import ast
import fnmatch
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import keystore as ks
import pytest
from ros_graph import ROOT

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped, PoseArray
from sensor_msgs.msg import CameraInfo, JointState, PointCloud2
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Float32MultiArray
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Classification, Detection2DArray
from visualization_msgs.msg import MarkerArray

from face_recon_ros.nodes.runtime import MARKER_QOS, RESULT_QOS, SENSOR_QOS

#: Module of each node -> its enclave.
ENCLAVES = {
    "camera": "/face/camera",
    "detector": "/face/detector",
    "reconstruction": "/face/reconstruction",
    "visualization": "/face/visualization",
    "pipeline": "/face/pipeline",
    "viewer": "/face/viewer",
    "expression_bridge": "/face/expression_bridge",
    "manager": "/face/lifecycle_manager",
    "look_at": "/look_at",
    "pan_tilt_simulator": "/neck_simulator",
}
OUTPUTS = {
    "/camera/image_raw": (ImageMsg, SENSOR_QOS),
    "/camera/camera_info": (CameraInfo, SENSOR_QOS),
    "/face/detections": (Detection2DArray, RESULT_QOS),
    "/face/crops": (ImageMsg, SENSOR_QOS),
    "/face/mesh/vertices": (PointCloud2, SENSOR_QOS),
    "/face/mesh/markers": (MarkerArray, MARKER_QOS),
    "/face/mesh/image": (ImageMsg, SENSOR_QOS),
    "/face/head_poses": (PoseArray, RESULT_QOS),
    "/face/attention": (Classification, RESULT_QOS),
    "/face/coefficients": (Float32MultiArray, RESULT_QOS),
    "/tf": (TFMessage, 100),
    "/diagnostics": (DiagnosticArray, 10),
    "/joint_states": (JointState, 10),
    "/look_at": (PointStamped, RESULT_QOS),
}


def enclaves():
    return {e.attrib["path"]: e for e in ET.parse(ks.POLICY).getroot().iter("enclave")}


def allowed(path):
    """DDS names an enclave may write and read."""
    written, read = [ks._DISCOVERY], [ks._DISCOVERY]
    for qualifier, out, into in ks.rules(enclaves()[path]):
        assert qualifier == "ALLOW"
        written += out
        read += into
    return written, read


def is_allowed(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


# --- the policy ---


def test_every_node_has_an_enclave():
    tree = ast.parse((ROOT / "setup.py").read_text())
    lines = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    prefix = "face_recon_ros.nodes."
    modules = {
        line.partition(prefix)[2].partition(":")[0]
        for line in lines
        if isinstance(line, str) and "_node = " in line
    }
    assert modules == set(ENCLAVES)
    assert set(ENCLAVES.values()) < set(enclaves())


def test_no_enclave_may_do_everything():
    for path in enclaves():
        written, read = allowed(path)
        for other in ("rt/chatter", "rt/cmd_vel", "rq/somebody/set_parametersRequest"):
            assert not is_allowed(other, written) and not is_allowed(other, read)
        for topic in ("rt/face/mesh/vertices", "rt/camera/image_raw", "rt/face/coefficients"):
            makes = {"/face/pipeline", "/face/reconstruction", "/face/camera"}
            assert path in makes or not is_allowed(topic, written)
        assert path in ENCLAVES.values() or not is_allowed("rt/face/coefficients", read)
    assert not is_allowed("rt/face/coefficients", allowed("/face/reader")[1])
    assert not is_allowed("rt/camera/image_raw", allowed("/face/reader")[1])


URDF = f"neck.urdf:={ROOT / 'urdf' / 'pan_tilt.urdf'}"
PATTERN = ("camera.source:=pattern", "camera.loop:=true")
TOGETHER = {
    "composed": {"pipeline": (*PATTERN, "output.coefficients:=true", "output.depth:=true")},
    "managed": {
        "pipeline": ("camera.source:=topic", "autostart:=false"),
        "expression_bridge": (),
        "camera": (*PATTERN, "autostart:=false"),
        "manager": (),
    },
    "separate": {
        "detector": (),
        "reconstruction": ("output.coefficients:=true", "output.depth:=true"),
        "visualization": (),
        "camera": PATTERN,
    },
    "robot": {"pan_tilt_simulator": (URDF, "neck_simulator.person:=still"), "look_at": ()},
}


WITHOUT_MODELS = ("camera", "manager", "look_at", "pan_tilt_simulator", "expression_bridge")


@pytest.mark.parametrize("together", TOGETHER)
def test_the_policy_allows_all_that_live_nodes_do(together, graph, listener, small_models):
    nodes = TOGETHER[together]
    for module, parameters in nodes.items():
        models = small_models if module not in WITHOUT_MODELS else []
        graph.start(module, *parameters, *models)
    heard = {t: listener.listen(kind, t, qos) for t, (kind, qos) in OUTPUTS.items()}
    last = ["/look_at"] if together == "robot" else ["/face/mesh/vertices", "/face/mesh/image"]
    if together == "managed":
        last = last[:1]
    assert listener.spin_until(lambda: all(heard[topic] for topic in last))
    listener.spin_until(lambda: False, 1.0)  # per-face topics
    for module in nodes:
        (profile,) = enclaves()[ENCLAVES[module]].iter("profile")
        namespace, name = profile.attrib["ns"], profile.attrib["node"]
        node, full = listener.node, f"{namespace.rstrip('/')}/{name}"
        written, read = allowed(ENCLAVES[module])
        known = (name, namespace)  # its topics may be heard before its name, and its name before
        assert listener.spin_until(lambda n=node, k=known: k in n.get_node_names_and_namespaces())
        assert listener.spin_until(  # its services
            lambda n=node, k=known: (
                n.get_publisher_names_and_types_by_node(*k)
                and n.get_service_names_and_types_by_node(*k)
            )
        ), full
        of = {
            "written": node.get_publisher_names_and_types_by_node(name, namespace),
            "read": node.get_subscriber_names_and_types_by_node(name, namespace),
            "served": node.get_service_names_and_types_by_node(name, namespace),
            "asked": node.get_client_names_and_types_by_node(name, namespace),
        }
        assert of["written"] and of["served"], full
        for topic, _ in of["written"]:
            assert is_allowed(f"rt{topic}", written), f"{full} writes {topic}"
        for topic, _ in of["read"]:
            assert is_allowed(f"rt{topic}", read), f"{full} reads {topic}"
        for service, _ in of["served"]:
            assert is_allowed(f"rq{service}Request", read), f"{full} serves {service}"
            assert is_allowed(f"rr{service}Reply", written), f"{full} serves {service}"
        for service, _ in of["asked"]:
            assert is_allowed(f"rq{service}Request", written), f"{full} asks {service}"
            assert is_allowed(f"rr{service}Reply", read), f"{full} asks {service}"


# --- the keystore ---


@pytest.fixture(scope="module")
def keystores(tmp_path_factory):
    """Ours, and one of another authority; of domain 17."""
    folders = [tmp_path_factory.mktemp("security") / name for name in ("ours", "others")]
    for folder in folders:
        assert set(ks.make_keystore(ks.POLICY, folder, 17)) == set(enclaves())
    return folders


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode == 0, done.stdout


def test_a_keystore_is_signed_by_its_own_authority(keystores):
    ours, others = keystores
    for path in enclaves():
        folder = ours / "enclaves" / path[1:]
        assert folder.joinpath("key.pem").stat().st_mode & 0o077 == 0
        assert folder.joinpath("governance.p7s").is_file()
        name = openssl(
            "x509", "-in", folder / "cert.pem", "-noout", "-subject", "-nameopt", "multiline"
        )[1]
        assert name.strip().endswith(f"= {path}")
        for authority, is_ours in ((ours, True), (others, False)):
            root = authority / "public" / "ca.cert.pem"
            assert openssl("verify", "-CAfile", root, folder / "cert.pem")[0] == is_ours
            signed = ["-in", folder / "permissions.p7s", "-CAfile", root]
            verified, text = openssl("smime", "-verify", "-text", *signed)
            assert verified == is_ours
            if is_ours:
                grant = ET.fromstring(text[text.index("<dds") :]).find("permissions/grant")
                assert grant.find("subject_name").text == f"CN={path}"
                assert grant.find("default").text == "DENY"
                assert {d.text for d in grant.iter("id")} == {"17"}


def test_a_keystore_made_again_keeps_its_keys(keystores, tmp_path):
    policy = tmp_path / "policy.xml"
    policy.write_text(ks.POLICY.read_text().replace("/face/attention", "/face/interest"))
    folder = keystores[1]
    names = ("private/ca.key.pem", "enclaves/face/camera/key.pem")
    before = [folder.joinpath(name).read_bytes() for name in names]
    ks.make_keystore(policy, folder, 17)
    assert before == [folder.joinpath(name).read_bytes() for name in names]
    assert "rt/face/interest" in (folder / "enclaves/face/pipeline/permissions.p7s").read_text()


# --- under DDS Security itself ---


@pytest.fixture(scope="module")
def participant(tmp_path_factory):
    """A program that writes or reads as an enclave."""
    if not Path("/usr/include/fastrtps/fastrtps_dll.h").is_file():
        pytest.skip("no Fast DDS with security: apt-get install libfastrtps-dev (Debian 12)")
    program = tmp_path_factory.mktemp("dds") / "participant"
    source = Path(__file__).with_name("dds_security.cpp")
    command = ["c++", "-std=c++17", "-o", program, source, "-lfastrtps", "-lfastcdr"]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    return program


def test_only_the_authorised_get_meshes_under_dds_security(participant, keystores):
    ours, others = (folder / "enclaves" for folder in keystores)
    env = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH" and "FAST" not in k}

    def start(role, folder, seconds, topic="rt/face/mesh/vertices"):
        words = [role, str(folder), topic, "17", str(seconds)]
        return subprocess.Popen([participant, *words], env=env, stdout=subprocess.PIPE, text=True)

    def said(process):
        output = process.communicate(timeout=60)[0]  # the middleware's complaints are in it too
        return re.findall(r"^(refused|\d+)\s*$", output, re.MULTILINE)[-1]

    running = {
        "writer": start("pub", ours / "face/pipeline", 14),
        "authorised": start("sub", ours / "face/reader", 12),
        "another enclave": start("sub", ours / "face/camera", 12),
        "another authority": start("sub", others / "face/reader", 12),
        "no certificate": start("sub", "-", 12),
        "writer without right": start("pub", ours / "face/reader", 1),
    }
    result = {who: said(process) for who, process in running.items()}
    for _ in range(2):  # where both begin at once, Fast DDS' handshake now and then never ends
        if result["authorised"] == "0":
            pair = {"writer": start("pub", ours / "face/pipeline", 14)}
            time.sleep(1.0)
            pair["authorised"] = start("sub", ours / "face/reader", 12)
            result |= {who: said(process) for who, process in pair.items()}
    assert int(result["writer"]) > 50
    assert int(result["authorised"]) > 0
    assert result["another enclave"] == "refused" == result["writer without right"]
    assert result["another authority"] == result["no certificate"] == "0"


# --- our nodes ---

READER = """
import sys, time
import rclpy
from sensor_msgs.msg import PointCloud2
from face_recon_ros.nodes.runtime import SENSOR_QOS
rclpy.init()
node, clouds = rclpy.create_node("reader"), []
print("started", flush=True)
node.create_subscription(PointCloud2, "/face/mesh/vertices", clouds.append, SENSOR_QOS)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and len(clouds) < 5:
    rclpy.spin_once(node, timeout_sec=0.1)
print(len(clouds), flush=True)
"""


@pytest.fixture
def secured(graph, tmp_path):
    """The graph's environment, with security enforced; its keystore."""
    ks.make_keystore(ks.POLICY, tmp_path / "keystore", graph.domain)
    graph.env.update(
        ROS_SECURITY_ENABLE="true",
        ROS_SECURITY_STRATEGY="Enforce",
        ROS_SECURITY_KEYSTORE=str(tmp_path / "keystore"),
    )
    return graph


def reader(graph, enclave, seconds):
    """Starts a reader of meshes; with no enclave one that knows nothing of security."""
    env = dict(graph.env)
    if enclave is None:
        env["ROS_SECURITY_ENABLE"] = "false"
    words = ["--ros-args", "--enclave", enclave] if enclave else []
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(seconds), *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return graph.adopt(process)


def middleware_has_security(graph):
    output = reader(graph, "/face/reader", 0.0).communicate(timeout=60)[0]
    assert "started" in output or "doesn't have the security libraries" in output, output
    return "started" in output


def enclave_of(module):
    return ("--ros-args", "--enclave", ENCLAVES[module], "--")


def test_only_the_authorised_get_meshes_of_our_nodes(secured, small_models):
    if not middleware_has_security(secured):
        pytest.skip("this rmw_fastrtps was built without security, as that of the wheels is")
    secured.start("pipeline", *small_models, *PATTERN, arguments=enclave_of("pipeline"))
    authorised = reader(secured, "/face/reader", 60)
    others = [reader(secured, enclave, 60) for enclave in ("/face/camera", None)]
    assert authorised.communicate(timeout=90)[0].split()[-1] == "5"
    time.sleep(2.0)
    for process in others:
        process.terminate()
        assert "5" not in process.communicate(timeout=20)[0].split()[-1:]


def test_a_node_that_cannot_be_secure_does_not_run_openly(secured):
    """Without its key, or in a middleware without security, a node told to be secure ends."""
    for arguments in ((), enclave_of("look_at")):
        if arguments and middleware_has_security(secured):
            continue
        node = secured.start("look_at", arguments=arguments)
        output, _ = node.communicate(timeout=60)
        assert node.returncode == 1, output
        assert "security" in output


@pytest.mark.parametrize("what", ["weights in another file", "cut off", "a pickle"])
def test_a_model_file_that_is_not_sound_stops_the_start(
    what, graph, network_path, face_model_path, tmp_path
):
    network, face_model = tmp_path / "net.onnx", tmp_path / "face.npz"
    network.write_bytes(network_path.read_bytes())
    face_model.write_bytes(face_model_path.read_bytes())
    says = "tensors in other files"
    if what == "weights in another file":
        onnx = pytest.importorskip("onnx")
        model = onnx.load(network)
        onnx.save(model, network, save_as_external_data=True, size_threshold=0, location="w")
    elif what == "cut off":
        face_model.write_bytes(face_model.read_bytes()[:-1000])
        says = "expected a plain .npz face model"
    else:
        network = network.rename(tmp_path / "net.pkl")
        says = ".npz, .onnx, .tflite"
    node = graph.start(
        "reconstruction",
        f"reconstructor.network:={network}",
        f"reconstructor.face_model:={face_model}",
    )
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 1, output
    assert says in output and "Traceback" not in output
