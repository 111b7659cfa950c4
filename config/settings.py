"""Every setting with its type and default; `williw.toml` beside this file documents each one."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Slots = Annotated[int, Meta(ge=1, le=1024)]
Size = Annotated[int, Meta(ge=0, le=2**62)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file; a key it does not know is an error."""


class Bus(Section, frozen=True, kw_only=True):
    """How to reach NATS and what williw keeps there."""

    url: str = "nats://127.0.0.1:4222"
    credentials_file: str = ""
    nkey_file: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    max_age_s: Seconds = 7 * 86_400.0
    max_bytes: Size = 1 << 30
    documents_max_bytes: Size = 4 << 30
    lease_s: Seconds = 30.0
    max_deliver: Annotated[int, Meta(ge=1, le=100)] = 6
    retry_delays_s: tuple[Seconds, ...] = (0.5, 2.0, 8.0, 30.0, 120.0)
    grace_s: Seconds = 20.0
    connect_timeout_s: Seconds = 10.0


class NodeSection(Section, frozen=True, kw_only=True):
    """This machine: who it is, what it offers, where it keeps things."""

    node_id: str = ""
    machine: str = ""
    origin: bool = False
    home: str = "~/.local/share/williw"
    compute_gflops: Annotated[float, Meta(ge=0)] = 0.0
    memory_bytes: Size = 0
    disk_bytes: Size = 0
    bandwidth_mbps: Annotated[float, Meta(ge=0)] = 0.0
    heartbeat_s: Seconds = 2.0
    expires_s: Seconds = 20.0


class Requester(Section, frozen=True, kw_only=True):
    """Accepting requests."""

    process_timeout_s: Seconds = 60.0


class Downloader(Section, frozen=True, kw_only=True):
    """Bringing a model to the origin's disk."""

    local_roots: tuple[str, ...] = ()
    workers: Slots = 4
    slots: Slots = 2
    keep_free_bytes: Size = 1 << 30


class Profiler(Section, frozen=True, kw_only=True):
    """Costing tensors."""

    exact: bool = True
    slots: Slots = 2
    count_timeout_s: Seconds = 300.0


class Uploader(Section, frozen=True, kw_only=True):
    """Where metadata goes; empty means the bus's object store."""

    metadata_repo: str = ""


class Planner(Section, frozen=True, kw_only=True):
    """Choosing nodes and cutting by compute."""

    strategy: Literal["pipeline", "greedy", "balanced"] = "pipeline"
    relay: Literal["auto", "chain", "star"] = "auto"
    budget_s: Seconds = 1.0
    headroom: Share = 0.1
    compute_margin: Annotated[float, Meta(ge=1)] = 1.2
    max_gpu_percent: Percent = 80.0
    max_cpu_percent: Percent = 85.0
    max_memory_percent: Percent = 80.0
    min_battery_percent: Percent = 20.0
    min_bandwidth_mbps: Annotated[float, Meta(ge=0)] = 1.0
    wait_for_nodes_s: Seconds = 15.0
    replan_after_s: Seconds = 10.0


class Splitter(Section, frozen=True, kw_only=True):
    """Cutting stages out of the source files."""

    materialize: Literal["own", "all", "none"] = "none"
    chunk_bytes: Annotated[int, Meta(ge=4096, le=64 << 20)] = 1 << 20
    jobs: Slots = 2


class Distributor(Section, frozen=True, kw_only=True):
    """Serving and receiving stages."""

    host: str = "127.0.0.1"
    port: Port = 0
    advertise_url: str = ""
    models_dir: str = ""
    quota_bytes: Size = 0
    keep_free_bytes: Size = 256 << 20
    in_flight: Slots = 4
    max_connections: Slots = 64
    slots: Slots = 16
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    upload_bytes_per_s: Size = 0
    hub: bool = False


class Logging(Section, frozen=True, kw_only=True):
    """How logs are written."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Health(Section, frozen=True, kw_only=True):
    """The HTTP face for probes and figures; port -1 is off, 0 a free one."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=-1, le=65_535)] = -1


class Settings(Section, frozen=True, kw_only=True):
    """All of it. `node.node_id` empty means this machine's name, made a valid id."""

    bus: Bus = Bus()
    node: NodeSection = NodeSection()
    requester: Requester = Requester()
    downloader: Downloader = Downloader()
    profiler: Profiler = Profiler()
    uploader: Uploader = Uploader()
    planner: Planner = Planner()
    splitter: Splitter = Splitter()
    distributor: Distributor = Distributor()
    logging: Logging = Logging()
    health: Health = Health()

    @property
    def home(self) -> Path:
        """The folder that holds everything williw writes on this machine."""
        return Path(self.node.home).expanduser().absolute()

    @property
    def origin_dir(self) -> Path:
        """What this machine keeps as an origin: metadata, cut stages, converted checkpoints."""
        return self.home / "origin"

    @property
    def models_dir(self) -> Path:
        """Where stage directories appear: `<models>/<org>--<name>`."""
        chosen = self.distributor.models_dir
        return Path(chosen).expanduser().absolute() if chosen else self.home / "models"
