"""A made-up machine for the scripts under tuning/: /sys, /proc and /etc below a directory, and the commands they use.

Plain files: what a kernel does on writing (a choice in brackets, masks in words) is undone by `settings`, which is
what the tests compare. Nothing here reaches the real machine.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from .paths import ROOT

TUNING = ROOT / "tuning"
SCRIPTS = ("check", "apply", "revert", "turn")

# Stand-ins for commands. Each gets the machine's root as its own parent directory.
COMMANDS = {
    "mount": """
        # mount -o remount,OPTION,... DIRECTORY: adds to what there is; of contradicting ones noatime wins.
        wanted, directory = sys.argv[2].split(",")[1:], sys.argv[3]
        undone = {"atime": "noatime", "norelatime": "relatime", "nodiscard": "discard"}
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
        for number, line in enumerate(lines):
            words = line.split(" ")
            if words[4] == directory:
                options = words[5].split(",")
                for option in wanted:
                    options = [o for o in options if o != undone.get(option)]
                    options += [option] if option in ("noatime", "relatime", "discard") else []
                if "noatime" in options:
                    options = [o for o in options if o != "relatime"]
                words[5] = ",".join(dict.fromkeys(options))
                lines[number] = " ".join(words)
        (root / "proc/self/mountinfo").write_text("\\n".join(lines) + "\\n")
    """,
    "taskset": """
        # taskset -p -c LIST TID
        status, = (root / "proc").glob(f"*/task/{sys.argv[4]}/status")
        status.write_text(re.sub(r"(Cpus_allowed_list:\\t).*", rf"\\g<1>{sys.argv[3]}", status.read_text()))
    """,
    "update-grub": """
        drop_ins = sorted((root / "etc/default/grub.d").glob("*.cfg"))
        (root / "boot").mkdir(exist_ok=True)
        (root / "boot/grub.cfg").write_text("".join(file.read_text() for file in drop_ins))
    """,
}


def mask(*cpus: int) -> str:
    digits = f"{sum(1 << cpu for cpu in cpus):08x}"
    return ",".join(re.findall(r".{8}", digits.zfill(-(-len(digits) // 8) * 8)))


class Machine:
    """`bare` has every kind of hardware; without it there is nothing at all to tune."""

    def __init__(self, directory: Path, bare: bool = True, cpus: int = 8):
        self.root = directory / "machine"
        self.state = directory / "state"
        self.root.mkdir()
        self.cpus = cpus
        if bare:
            self.build()

    def put(self, path: str, text: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return file

    def build(self) -> None:
        every = range(self.cpus)
        half = self.cpus // 2
        cpu_root = "sys/devices/system/cpu"
        self.put(f"{cpu_root}/online", f"0-{self.cpus - 1}")
        self.put(f"{cpu_root}/isolated", "")
        self.put(f"{cpu_root}/smt/control", "on")
        self.put(f"{cpu_root}/intel_pstate/no_turbo", 1)
        for cpu in every:
            at = f"{cpu_root}/cpu{cpu}"
            self.put(f"{at}/topology/thread_siblings_list", f"{cpu % half},{cpu % half + half}")
            self.put(f"{at}/cpufreq/scaling_driver", "intel_pstate")
            self.put(f"{at}/cpufreq/scaling_governor", "powersave")
            self.put(f"{at}/cpufreq/scaling_available_governors", "performance powersave ")
            self.put(f"{at}/cpufreq/energy_performance_preference", "balance_power" if cpu else "power")
            for state, (name, latency) in enumerate([("POLL", 0), ("C1", 2), ("C1E", 10), ("C6", 133)]):
                self.put(f"{at}/cpuidle/state{state}/name", name)
                self.put(f"{at}/cpuidle/state{state}/latency", latency)
                self.put(f"{at}/cpuidle/state{state}/disable", 0)
        for node in range(2):
            self.put(f"sys/devices/system/node/node{node}/cpulist", f"{node * half}-{node * half + half - 1}")
        clock = "sys/devices/system/clocksource/clocksource0"
        self.put(f"{clock}/current_clocksource", "hpet")
        self.put(f"{clock}/available_clocksource", "tsc hpet acpi_pm ")
        self.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
        self.put("sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never")
        self.build_network(every)
        self.build_disk(every)
        for workqueue in ("", "writeback/"):
            self.put(f"sys/devices/virtual/workqueue/{workqueue}cpumask", mask(*every))
        self.put("proc/sys/kernel/random/boot_id", "1111-2222")
        self.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz ro quiet")
        self.put("proc/meminfo", "MemTotal:       65536000 kB\nMemFree:        1 kB")
        self.put("proc/77/comm", "ottla")
        for thread, name in ((77, "ottla"), (78, "core-0"), (90, "iou-wrk-78"), (91, "iou-wrk-78")):
            self.put(f"proc/77/task/{thread}/comm", name)
            self.put(f"proc/77/task/{thread}/status", f"Name:\t{name}\nCpus_allowed_list:\t0-{self.cpus - 1}\nMems_allowed:\t1")
        for name, value in {
            "fs/pipe-max-size": 65536, "fs/pipe-user-pages-soft": 16384, "fs/nr_open": 1 << 30,
            "kernel/numa_balancing": 1, "vm/zone_reclaim_mode": 0, "vm/swappiness": 60,
            "vm/dirty_bytes": 0, "vm/dirty_ratio": 20, "vm/dirty_background_bytes": 0, "vm/dirty_background_ratio": 10,
            "vm/dirty_expire_centisecs": 3000, "vm/dirty_writeback_centisecs": 500,
            "net/core/somaxconn": 128, "net/ipv4/tcp_max_syn_backlog": 2048, "net/core/netdev_max_backlog": 1000,
            "net/core/busy_poll": 0, "net/core/busy_read": 0, "net/core/rps_sock_flow_entries": 0,
        }.items():
            self.put(f"proc/sys/{name}", value)
        for folder in ("etc/default/grub.d", "etc/security/limits.d", "bin"):
            (self.root / folder).mkdir(parents=True)
        for name, body in COMMANDS.items():
            lines = [f"#!{sys.executable}", "import re, sys", "from pathlib import Path", "root = Path(__file__).parents[1]"]
            command = self.put(f"bin/{name}", "\n".join(lines + [line.strip() if not line.strip() else line[8:] for line in body.splitlines()]))
            command.chmod(0o755)

    def build_network(self, cpus) -> None:
        for queue in range(2):
            at = f"sys/class/net/eth0/queues"
            self.put(f"{at}/rx-{queue}/rps_cpus", mask())
            self.put(f"{at}/rx-{queue}/rps_flow_cnt", 0)
            self.put(f"{at}/tx-{queue}/xps_cpus", mask())
        self.put("sys/class/net/eth0/napi_defer_hard_irqs", 0)
        self.put("sys/class/net/eth0/gro_flush_timeout", 0)
        (self.root / "sys/class/net/lo").mkdir()
        for irq in (30, 31, 32, 40, 41):
            device = "sys/class/net/eth0/device" if irq < 40 else "sys/class/nvme/nvme0/device"
            self.put(f"{device}/msi_irqs/{irq}", "msix")
            self.put(f"proc/irq/{irq}/smp_affinity", mask(*cpus))
        self.put("proc/irq/default_smp_affinity", mask(*cpus))

    def build_disk(self, _cpus) -> None:
        disk = self.root / "sys/block/nvme0n1"
        for name, text in (("scheduler", "none [mq-deadline] kyber"), ("rotational", 0), ("nomerges", 0), ("rq_affinity", 1), ("read_ahead_kb", 256)):
            self.put(f"sys/block/nvme0n1/queue/{name}", text)
        (disk / "nvme0n1p1").mkdir()
        numbers = self.root / "sys/dev/block"
        numbers.mkdir(parents=True)
        (numbers / "259:1").symlink_to("../../block/nvme0n1/nvme0n1p1")
        (self.root / "var/lib/ottla").mkdir(parents=True)
        self.put("proc/self/mountinfo", "\n".join([
            "21 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw",
            "22 21 259:1 / /var/lib/ottla rw,relatime,discard shared:2 - xfs /dev/nvme0n1p1 rw,attr2",
            "23 21 0:5 / /var/lib/other rw - tmpfs tmpfs rw",
        ]))

    def run(self, script: str, *arguments: str, status: int | None = 0, **environment: str) -> list[str]:
        """Lines that it printed; `status` None allows any."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith("OTTLA_TUNING")}
        variables |= {"OTTLA_TUNING_ROOT": str(self.root), "OTTLA_TUNING_STATE": str(self.state)} | environment
        done = subprocess.run([TUNING / script, *arguments], env=variables, capture_output=True, text=True, timeout=120)
        self.complaints = done.stderr
        # Bash's own complaints name the script's line; none is ever due.
        assert not re.search(r": line \d+:", done.stderr), done.stderr
        assert status is None or done.returncode == status, f"{script} {arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout.splitlines()

    def settings(self) -> dict[str, str]:
        """Everything that could have been changed, as it is."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_file() and not name.startswith("bin/") and name != "boot/grub.cfg":
                text = path.read_text()
                chosen = re.search(r"\[([^]]+)\]", text)
                found[name] = (chosen.group(1) if chosen and name.startswith("sys/") else text.strip())
        mounts = found.get("proc/self/mountinfo")
        if mounts:
            # The order of a mount's options means nothing.
            found["proc/self/mountinfo"] = "\n".join(" ".join(",".join(sorted(word.split(","))) for word in line.split(" ")) for line in mounts.splitlines())
        return found

    def recorded(self) -> dict[str, str]:
        if not self.state.exists():
            return {}
        return {path.name: path.read_text() for path in self.state.iterdir() if not path.name.startswith(".")}


def statuses(lines: list[str]) -> list[str]:
    return [re.split(r"\s{2,}", line)[0] for line in lines]


def tuners() -> list[str]:
    """In the order of tuning/profiles."""
    lines = (TUNING / "profiles").read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]
