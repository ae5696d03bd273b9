#!/usr/bin/env python3
"""fleet.py BINARY CONTROL_PLANE: three replicas in network namespaces behind HAProxy, in TCP mode with
PROXY protocol.

Under load they are replaced one by one, as a rollout does, while the trust volume is swapped as the
kubelet does, and again while `fetch` runs beside each and `rotate` replaces the certificate of the
stand-in control plane (`cargo build --example control-plane`), whose nodes are the load. No request
may be lost, and every replica must end with the new trust. A replica cut off stops a rotation.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CERTS = ROOT / "certs-example"
DEADLINE = 60
NET = "10.231.77"
BRIDGE = "pcl-fleet"
BALANCER = f"{NET}.1"


def run(*command):
    subprocess.run(command, check=True)


def wait_for(what, condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAILED: no {what} within {DEADLINE} s")
        time.sleep(0.05)


class Volume:
    """A volume as the kubelet writes it: files are links into `..data`, which is swapped as one."""

    def __init__(self, path):
        self.path, self.generation = path, 0
        path.mkdir()

    def write(self, *names):
        old = self.path / "..data"
        was = os.readlink(old) if old.is_symlink() else None
        self.generation += 1
        new = self.path / f"..{self.generation:08}"
        new.mkdir()
        for name in names:
            shutil.copy(CERTS / f"{name}.pem", new)
        link = self.path / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(old)
        for name in names:
            with contextlib.suppress(FileExistsError):
                (self.path / f"{name}.pem").symlink_to(f"..data/{name}.pem")
        for file in self.path.glob("*.pem"):
            if file.stem not in names:
                file.unlink()
        if was:
            shutil.rmtree(self.path / was)


class Replica:
    """A host of its own: a namespace, an address, a server."""

    def __init__(self, binary, number, work):
        self.binary, self.work = binary, work
        self.name, self.address = f"pcl-{number}", f"{NET}.{10 + number}"
        self.volume = Volume(work / f"trust-{number}")
        self.fetched = work / f"fetched-{number}"
        self.trust, self.process, self.fetch = self.volume.path, None, None
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"{self.name}-v", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"{self.name}-v", "master", BRIDGE, "up")
        for command in [["link", "set", "lo", "up"], ["addr", "add", f"{self.address}/24", "dev", "eth0"],
                        ["link", "set", "eth0", "up"]]:
            run("ip", "-n", self.name, *command)

    def start(self):
        command = ["ip", "netns", "exec", self.name, self.binary, "serve", "--listen", f"{self.address}:8443",
                   "--cert", str(CERTS / "server-cert.pem"), "--key", str(CERTS / "server-key.pem"),
                   "--trust", str(self.trust), "--proxy-protocol", "--proxy-protocol-from", f"{BALANCER}/32",
                   "--admin", f"{self.address}:9090", "--shutdown-delay", "2s", "--log-format", "json"]
        self.log = open(self.work / f"{self.name}.log", "a")
        self.process = subprocess.Popen(command, stderr=self.log)
        wait_for(f"answer of {self.name}", lambda: self.get("/readyz") is not None)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        if code != 0:
            sys.exit(f"FAILED: {self.name} ended with {code}")

    def start_fetch(self, stage, variables):
        """As the init container does, and then the sidecar; the server trusts what it writes from now on."""
        command = ["ip", "netns", "exec", self.name, self.binary, "fetch", "--into", str(self.fetched), "--stage", stage]
        environment = {**os.environ, **variables}
        subprocess.run(command, check=True, env=environment, stderr=self.log)
        self.fetch = subprocess.Popen(command + ["--every", "1s"], env=environment, stderr=self.log)
        self.trust = self.fetched

    def set_link(self, state):
        run("ip", "link", "set", f"{self.name}-v", state)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.address}:9090{path}", timeout=5) as response:
                return response.read()
        except OSError:
            return None

    def trusts(self):
        return sorted(pathlib.Path(entry["file"]).stem for entry in json.loads(self.get("/status"))["trusted"])

    def remove(self):
        for process in filter(None, [self.process, self.fetch]):
            process.kill()
            process.wait()
        run("ip", "netns", "del", self.name)


class Load:
    """Clients that keep a connection for as long as it is offered, and clients that make a new one each time."""

    def __init__(self, client):
        self.tls = ssl.create_default_context(cafile=CERTS / "root.pem")
        self.tls.load_cert_chain(CERTS / f"{client}.pem", CERTS / f"{client}-key.pem")
        self.client, self.ends, self.served, self.lost = client, threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.ask, args=(kept,), daemon=True) for kept in [True, True, False, False]]
        for thread in self.threads:
            thread.start()

    def ask(self, kept):
        while not self.ends.is_set():
            connection = http.client.HTTPSConnection("localhost", 8443, context=self.tls, timeout=20)
            connection._create_connection = lambda _, *more: socket.create_connection((BALANCER, 8443), *more)
            try:
                while not self.ends.is_set():
                    connection.request("GET", "/")
                    response = connection.getresponse()
                    response.read()
                    if response.status != 200:
                        self.lost.append(response.status)
                    self.served += 1
                    if not kept or response.will_close:
                        break
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
            connection.close()

    def goes_on(self):
        before = self.served
        wait_for("requests", lambda: self.served >= before + 50)

    def end(self):
        self.ends.set()
        for thread in self.threads:
            thread.join()
        if self.lost:
            sys.exit(f"FAILED: {len(self.lost)} requests of {self.client} lost: {self.lost[:5]}")
        print(f"ok: {self.served} requests of {self.client}, none lost")


def balance(replicas, work):
    servers = "\n".join(
        # The health check is TCP, as a network load balancer's.
        f"    server {r.name} {r.address}:8443 send-proxy-v2 check inter 200ms fall 2 rise 1"
        for r in replicas)
    (work / "haproxy.cfg").write_text(f"""
global
    stats socket {work}/haproxy.sock level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 400s
    timeout server 400s
    retries 3
    option redispatch 1
listen fleet
    bind {BALANCER}:8443
    balance roundrobin
{servers}
""")
    with open(work / "haproxy.log", "w") as log:
        return subprocess.Popen(["haproxy", "-db", "-f", str(work / "haproxy.cfg")], stderr=log)


def tell(work, command):
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(str(work / "haproxy.sock"))
        stats.sendall(command.encode() + b"\n")
        return stats.recv(65536)


def replace(replica, work):
    """As a rollout does: the load balancer is told to turn away while the old one still accepts."""
    tell(work, f"set server fleet/{replica.name} state drain")
    replica.stop()
    replica.start()
    tell(work, f"set server fleet/{replica.name} state ready")


def swap_volumes(replicas, work):
    """A rotation by hand: each trust volume is swapped, and each replica is replaced, twice."""
    load = Load("client-1")
    load.goes_on()
    for replica in replicas:
        replica.volume.write("client-1", "client-2")
        replace(replica, work)
        load.goes_on()
    for replica in replicas:
        wait_for(f"new trust of {replica.name}", lambda: replica.trusts() == ["client-1", "client-2"])
    # The stage presents the new certificate, while the replicas are replaced once more.
    successor = Load("client-2")
    successor.goes_on()
    load.end()
    for replica in replicas:
        replica.volume.write("client-2")
        wait_for(f"newest trust of {replica.name}", lambda: replica.trusts() == ["client-2"])
        replace(replica, work)
        successor.goes_on()
    successor.end()
    peers = {json.loads(line).get("peer", "").rpartition(":")[0]
             for replica in replicas for line in open(work / f"{replica.name}.log") if '"request"' in line}
    if peers != {BALANCER}:
        sys.exit(f"FAILED: the peer's address is not the one of the PROXY header: {peers}")
    print("ok: three replicas replaced twice, with the trust volume swapped")


class ControlPlane:
    def __init__(self, program):
        self.process = subprocess.Popen([program, f"{BALANCER}:9400"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        about = json.loads(self.process.stdout.readline())
        self.variables, self.certificate = about["variables"], about["certificate"]
        self.stage = f"{about['api']}/{about['stage']}"

    def start_traffic(self):
        self.process.stdin.write(f"{BALANCER}:8443 {CERTS / 'root.pem'}\n")
        self.process.stdin.flush()

    def end(self):
        return json.loads(self.process.communicate(timeout=DEADLINE)[0].splitlines()[-1])


def rotate(binary, plane, replicas, *more):
    command = [binary, "rotate", "--stage", plane.stage, "--fleet-fetches", "--quiet-for", "3s",
               "--replicas", *[f"http://{replica.address}:9090" for replica in replicas], *more]
    return subprocess.run(command, env={**os.environ, **plane.variables}, capture_output=True, text=True, timeout=180)


def rotate_fleet(binary, program, replicas, work, stack):
    plane = ControlPlane(program)
    stack.callback(plane.process.kill)
    for replica in replicas:
        replica.start_fetch(plane.stage, plane.variables)
        replace(replica, work)
    old = [plane.certificate]
    for replica in replicas:
        wait_for(f"fetched trust of {replica.name}", lambda: replica.trusts() == old)

    cut_off = replicas[2]
    tell(work, f"set server fleet/{cut_off.name} state maint")
    cut_off.set_link("down")
    stopped = rotate(binary, plane, replicas, "--timeout", "3s")
    if stopped.returncode != 1 or cut_off.address not in stopped.stdout + stopped.stderr:
        sys.exit(f"FAILED: {stopped.returncode} with a replica cut off\n{stopped.stdout}{stopped.stderr}")
    cut_off.set_link("up")
    wait_for(f"answer of {cut_off.name}", lambda: cut_off.get("/readyz") is not None)
    tell(work, f"set server fleet/{cut_off.name} state ready")
    if any(replica.trusts() != old for replica in replicas):
        sys.exit("FAILED: something changed though a replica was cut off")
    print("ok: a replica that is cut off stops the rotation")

    # Not before: a request on its way to a replica that is cut off is lost to the network, not by it.
    plane.start_traffic()

    # Replicas are replaced while it runs.
    restarts = threading.Thread(target=lambda: [replace(replica, work) for replica in replicas[:1]])
    restarts.start()
    rotated = rotate(binary, plane, replicas)
    restarts.join()
    if rotated.returncode != 0:
        sys.exit(f"FAILED: the rotation ended with {rotated.returncode}\n{rotated.stdout}{rotated.stderr}")
    trusts = {tuple(replica.trusts()) for replica in replicas}
    report = plane.end()
    new = set(report["by_certificate"]) - set(old)
    if report["failures"] or len(new) != 1 or trusts != {tuple(new)}:
        sys.exit(f"FAILED: trusted {trusts}, traffic {report}\n{rotated.stdout}{rotated.stderr}")
    print(f"ok: rotated, all replicas on the new certificate, none of {report['succeeded']} requests lost")


def main(binary, program=None):
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(run, "ip", "link", "del", BRIDGE)
        run("ip", "addr", "add", f"{BALANCER}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        replicas = []
        for number in range(3):
            replicas.append(Replica(binary, number, work))
            stack.callback(replicas[-1].remove)
        for replica in replicas:
            replica.volume.write("client-1")
            replica.start()
        haproxy = balance(replicas, work)
        stack.callback(haproxy.wait)
        stack.callback(haproxy.kill)
        wait_for("load balancer", lambda: (work / "haproxy.sock").exists())
        swap_volumes(replicas, work)
        if program:
            rotate_fleet(binary, program, replicas, work, stack)


if __name__ == "__main__":
    main(*[os.path.abspath(path) for path in sys.argv[1:3]])
