"""This side: stic, a process a command, and the memory that a process takes."""

import contextlib
import ctypes
import json
import lzma
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from cuda import find_cuda
from size import Failed, PACKED, ROOT, SIZES

class Card(ctypes.Structure):
    """NVML's `nvmlMemory_t`: bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Memory:
    """The most memory that a process takes: of an NVIDIA card as its driver sees it, beyond what was in use before it
    began; elsewhere of the machine."""

    def __init__(self, device):
        self.card, self.over = device.startswith("cuda"), threading.Event()
        if self.card:
            index = int((device.split(":") + ["0"])[1])
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            name = visible.split(",")[index] if visible else str(index)
            self.nvml, self.handle = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
            self.nvml.nvmlInit_v2()
            if name.isdigit():
                code = self.nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(self.handle))
            else:
                code = self.nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(self.handle))
            if code:
                raise Failed(f"NVML knows no card {name}: error {code}")
            self.base = self.used = self.now()
            threading.Thread(target=self.watch, daemon=True).start()

    def now(self):
        card = Card()
        if code := self.nvml.nvmlDeviceGetMemoryInfo(self.handle, ctypes.byref(card)):
            raise Failed(f"NVML does not say how much memory is used: error {code}")
        return card.used

    def watch(self):
        while not self.over.wait(0.02):
            self.used = max(self.used, self.now())

    def forget(self, process):
        """Begins a new peak."""
        if self.card:
            self.used = self.now()
        else:
            with contextlib.suppress(OSError):
                Path(f"/proc/{process}/clear_refs").write_text("5")

    def peak(self, process):
        if self.card:
            return self.used - self.base
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) << 10

    def peak_of_ended(self, usage):
        """Of a process that has ended, from what the system says that it used."""
        self.over.set()
        return self.used - self.base if self.card else usage.ru_maxrss << 10


class Setting:
    """What is measured, where, and for how long."""

    def __init__(self, options):
        self.options = options
        self.size, self.device = SIZES[options.size], options.device
        name = f"{options.size}-{options.device}".replace(":", "")
        self.work = Path(options.work or ROOT / "target/gpu").resolve() / name
        self.model, self.results, self.logs = self.work / "model", self.work / "results", self.work / "logs"
        self.on_cuda = self.device.startswith("cuda")
        self.dtype, self.width = ("bf16", 2) if self.on_cuda else ("f32", 4)
        self.deadline = time.monotonic() + options.limit - 20
        self.environment = dict(os.environ)
        self.stic_file = None

    def memory(self):
        return Memory(self.device)

    def use(self):
        """Finds the program and what it needs to be run."""
        self.stic_file = find_stic(self)
        if self.on_cuda:
            found = find_cuda()
            if found.headers:
                self.environment["CUDA_PATH"] = str(found.headers)
            if found.nvrtc:
                paths = [str(found.nvrtc.parent), self.environment.get("LD_LIBRARY_PATH", "")]
                self.environment["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
        return self

    def left(self):
        return self.deadline - time.monotonic()

    def stic(self, *arguments, event=lambda event: None, expect=0):
        """Runs stic, and gives the JSON objects that it wrote, each with `at`, the time it came. It is stopped when the
        part's time is over: what it had written by then is given."""
        memory = self.memory()
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{self.options.inside or 'stic'}.txt"
        objects = []
        with open(log, "a") as errors:
            errors.write(f"$ stic {' '.join(map(str, arguments))}\n")
            errors.flush()
            began = errors.tell()
            command = [str(self.stic_file), *map(str, arguments)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment, cwd=ROOT
            )
            stopped = []
            timer = threading.Timer(max(self.left(), 1), lambda: (stopped.append(True), process.terminate()))
            timer.start()
            for line in process.stdout:
                if line.startswith("{"):
                    objects.append(json.loads(line) | {"at": time.monotonic()})
                    event(objects[-1])
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            timer.cancel()
            peak = memory.peak_of_ended(usage)
        if not stopped and process.returncode != expect:
            said = log.read_bytes()[began:].decode(errors="replace").strip()
            raise Failed(f"`stic {arguments[0]}` ended with {process.returncode}: {said[-1500:]} (all of it: {log})")
        return Said(objects, peak, bool(stopped))

    def pipeline(self, name, text):
        """A pipeline file with a cache of its own, and where they are."""
        folder = self.work / "pipelines" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        head = f"[pipeline]\nname = '{name}'\nlanguage = 1\nseed = 1\n[device]\nbackend = '{self.device}'\n"
        head += f"dtype = '{self.dtype}'\n[models.base]\nsource = '{self.model}'\n"
        (folder / "pipeline.toml").write_text(head + text)
        return folder

    def run(self, folder, event=lambda event: None):
        return self.stic("run", folder / "pipeline.toml", "--json", "--cache", folder / "cache", event=event)


class Said:
    """What stic wrote, the memory that it took, and whether it was stopped."""

    def __init__(self, objects, memory, stopped):
        self.objects, self.memory, self.stopped = objects, memory, stopped

    def nodes(self):
        """The nodes that ended: seconds, tokens, and the seconds of a token but the first ones."""
        found = {}
        for node in [event["node"] for event in self.objects if event.get("event") == "finished"]:
            mine = [event for event in self.objects if event.get("node") == node]
            told = [event for event in mine if event["event"] == "progress" and event.get("tokens")]
            tokens = told[-1]["tokens"] if told else 0
            # An event has the count of the moment at which it is written.
            more = tokens - told[0]["tokens"] if told else 0
            pace = (told[-1]["at"] - told[0]["at"]) / more if more else None
            found[node] = {"seconds": mine[-1]["seconds"], "tokens": tokens, "seconds_per_token": pace}
        return found


def find_stic(setting):
    named = setting.options.stic or os.environ.get("STIC")
    if named:
        return Path(named).resolve()
    packed, built = PACKED / "stic.xz", ROOT / "target/release/stic"
    if packed.exists() and not (built.exists() and built.stat().st_mtime > packed.stat().st_mtime):
        return unpacked(packed)
    return built


def unpacked(packed):
    """The program in an xz file, unpacked beside it unless it is already."""
    file = ROOT / "target/gpu" / packed.stem
    if not file.exists() or file.stat().st_mtime < packed.stat().st_mtime:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        with lzma.open(packed) as source, open(new, "wb") as target:
            shutil.copyfileobj(source, target)
        new.chmod(0o755)
        new.replace(file)
    return file
