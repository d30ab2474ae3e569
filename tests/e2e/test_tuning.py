"""tuning/: each tuner and profile against a made-up machine. No setting of the real one is changed.

The real /sys and /proc are only read, by the one test that runs tuning/check as a user would.
"""

import os
import re
import shutil
import subprocess

import pytest

from harness.fake_machine import SCRIPTS, TUNING, Machine, mask, statuses, tuners
from harness.paths import OTTLA_BIN

pytestmark = pytest.mark.stricter_than_kafka("Apache Kafka has no such scripts")

TUNERS = tuners()
PROFILES = ("latency", "throughput")
IN_THROUGHPUT_LEFT = {"smt", "cpu-idle", "isolation", "io-workers"}


@pytest.fixture(autouse=True)
def once(request):
    """The suite runs with several numbers of shards; no node takes part here."""
    config = request.config
    if config.getoption("--shards") not in (None, 2) or config.getoption("--unprivileged"):
        pytest.skip("is run once, with two shards")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def lines_of(lines: list[str], status: str) -> list[str]:
    return [line for line in lines if line.startswith(f"{status} ")]


# ---- Each tuner ----


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tuner", TUNERS)
def test_a_tuner_checks_applies_and_restores(machine, tuner, profile):
    before = machine.settings()
    told = machine.run(tuner, "check", "--profile", profile)
    assert machine.settings() == before and not machine.recorded()
    wanted = lines_of(told, "would change")
    left = profile == "throughput" and tuner in IN_THROUGHPUT_LEFT
    assert bool(wanted) != left, told
    assert statuses(told) == ["left as it is"] if left else set(statuses(told)) <= {"ok", "would change"}

    # A trial changes nothing and records nothing.
    dry = machine.run(tuner, "apply", "--profile", profile, "--dry-run")
    assert machine.settings() == before and not machine.recorded() and dry == told

    first = machine.run(tuner, "apply", "--profile", profile)
    after, recorded = machine.settings(), machine.recorded()
    assert len(lines_of(first, "changed")) == len(wanted) and (after != before) == bool(wanted)
    assert list(recorded) == ([tuner] if wanted else [])
    assert set(statuses(machine.run(tuner, "check", "--profile", profile))) <= {"ok", "left as it is"}

    second = machine.run(tuner, "apply", "--profile", profile)
    assert "changed" not in statuses(second), second
    assert machine.settings() == after and machine.recorded() == recorded

    machine.run(tuner, "revert", "--dry-run")
    assert machine.settings() == after and machine.recorded() == recorded
    restored = machine.run(tuner, "revert")
    assert set(statuses(restored)) <= {"restored", "ok"}, restored
    assert machine.settings() == before and not machine.recorded()
    assert statuses(machine.run(tuner, "revert")) == ["ok"]
    assert machine.settings() == before


@pytest.mark.parametrize("tuner", TUNERS)
def test_where_there_is_nothing_to_tune_the_reason_is_told(tmp_path, tuner):
    machine = Machine(tmp_path, bare=False)
    for profile in PROFILES:
        for action in ("check", "apply"):
            told = machine.run(tuner, action, "--profile", profile)
            assert told and set(statuses(told)) <= {"not available here", "left as it is"}, told
            assert all(": " in line for line in told), told
    assert machine.run(tuner, "revert") and not machine.settings() and not machine.recorded()


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_tuner_says_why_what_it_costs_and_how_it_is_measured(machine, tuner):
    text = "\n".join(machine.run(tuner, "--help"))
    for part in ("Why", "Values", "Costs", "Measure"):
        assert re.search(rf"^{part}\s+\S", text, re.MULTILINE), (tuner, part)
    assert text.startswith(f"{tuner}: ") and "ottla bench" in text
    for wrong in ((), ("polish",), ("check", "apply"), ("check", "--profile", "beauty"), ("check", "--cpus")):
        assert machine.run(tuner, *wrong, status=2) == [] and machine.complaints.startswith(f"{tuner}: ")


# ---- What can go wrong ----


def test_a_failure_half_way_says_what_was_changed_and_what_was_not(machine):
    before = machine.settings()
    # Written without an error, and empty when it is read again.
    stuck = machine.root / "proc/sys/vm/dirty_writeback_centisecs"
    stuck.unlink()
    stuck.symlink_to("/dev/null")
    told = machine.run("write-back", "apply", status=1)
    assert statuses(told) == ["changed", "changed", "FAILED", "not tried"], told
    assert "dirty_writeback_centisecs" in told[2] and "dirty_expire_centisecs" in told[3]
    assert "recorded" in machine.complaints
    # What didn't change isn't recorded; what did is, and is restored.
    assert "dirty_writeback_centisecs" not in machine.recorded()["write-back"]
    stuck.unlink()
    machine.put("proc/sys/vm/dirty_writeback_centisecs", 500)
    machine.run("write-back", "revert")
    assert machine.settings() == before and not machine.recorded()


def test_a_write_that_the_kernel_refuses_is_told_in_its_words(machine):
    # A file that even root can't open for writing, whatever is mounted or dropped here.
    file = machine.root / "proc/sys/vm/swappiness"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/ostype")
    told = machine.run("swap", "apply", status=1)
    assert statuses(told) == ["FAILED"] and re.search("Permission denied|Read-only file system", told[0]), told
    assert not machine.recorded()


def test_a_profile_stops_at_a_failure_and_can_be_restored(machine):
    before = machine.settings()
    file = machine.root / "proc/sys/vm/swappiness"
    file.unlink()
    file.symlink_to("/dev/null")
    told = machine.run("apply", "latency", status=1)
    place = TUNERS.index("swap")
    assert [line.split()[-1] for line in lines_of(told, "not tried")] == TUNERS[place + 1:]
    assert len(lines_of(told, "FAILED")) == 1 and "revert" in machine.complaints
    assert set(machine.recorded()) == set(TUNERS[:place]) - {"isolation"}
    machine.run("revert")
    file.unlink()
    machine.put("proc/sys/vm/swappiness", 60)
    assert machine.settings() == before and not machine.recorded()


def test_what_cannot_be_restored_stays_recorded(machine):
    before = machine.settings()
    machine.run("accept-queue", "apply")
    file = machine.root / "proc/sys/net/core/somaxconn"
    file.unlink()
    file.symlink_to("/dev/null")
    told = machine.run("accept-queue", "revert", status=1)
    assert sorted(statuses(told)) == ["FAILED", "restored", "restored"], told
    assert machine.recorded() == {"accept-queue": "boot\t1111-2222\t\nfile\t/proc/sys/net/core/somaxconn\t128\n"}
    file.unlink()
    machine.put("proc/sys/net/core/somaxconn", 4096)
    machine.run("accept-queue", "revert")
    assert machine.settings() == before and not machine.recorded()


def test_a_device_that_is_gone_is_told_and_forgotten(machine):
    machine.run("packet-steering", "apply")
    shutil.rmtree(machine.root / "sys/class/net/eth0")
    told = machine.run("packet-steering", "revert")
    assert len(lines_of(told, "gone")) == 3 and all("(×2)" in line for line in lines_of(told, "gone")) and len(lines_of(told, "restored")) == 1, told
    assert not machine.recorded()


def test_interrupts_that_the_kernel_manages_are_no_failure(machine):
    file = machine.root / "proc/irq/40/smp_affinity"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/ostype")
    told = machine.run("irq-affinity", "apply")
    assert any("the kernel refuses" in line for line in lines_of(told, "not available here")), told
    assert "irq/40" not in machine.recorded()["irq-affinity"]


def test_what_was_being_recorded_when_the_power_went_is_left_out(machine):
    before = machine.settings()
    machine.run("swap", "apply")
    with (machine.state / "swap").open("a") as file:
        file.write("file\t/proc/sys/vm/dirty_ra")
    machine.run("swap", "revert")
    assert machine.settings() == before and not machine.recorded()


def test_after_a_reboot_only_files_are_restored(tmp_path):
    machine = Machine(tmp_path)
    before = machine.settings()
    machine.run("apply", "latency", "--boot")
    # The kernel is as it was, but for numbers that mean something else now; files stay.
    files = {name: text for name, text in machine.settings().items() if name.startswith("etc/")}
    (tmp_path / "booted").mkdir()
    booted = Machine(tmp_path / "booted")
    booted.state = machine.state
    for name, text in files.items():
        booted.put(name, text)
    booted.put("proc/sys/kernel/random/boot_id", "3333-4444")
    booted.put("proc/irq/30/smp_affinity", mask(7))
    unlike = booted.settings()
    booted.run("revert", "--dry-run")
    assert booted.settings() == unlike
    booted.run("revert")
    assert booted.settings() == before | {name: unlike[name] for name in ("proc/sys/kernel/random/boot_id", "proc/irq/30/smp_affinity")}
    assert not machine.recorded()


def test_a_boot_script_applies_anew_after_a_reboot(machine):
    machine.run("swap", "apply")
    machine.put("proc/sys/kernel/random/boot_id", "3333-4444")
    machine.put("proc/sys/vm/swappiness", 10)
    assert statuses(machine.run("swap", "apply")) == ["changed"]
    machine.run("swap", "revert")
    assert machine.settings()["proc/sys/vm/swappiness"] == "10"


def test_a_thread_with_the_same_number_is_left_alone(machine):
    machine.run("io-workers", "apply")
    machine.put("proc/77/task/90/comm", "somebody")
    told = machine.run("io-workers", "revert")
    assert len(lines_of(told, "gone")) == 1 and "77/90" in lines_of(told, "gone")[0], told
    assert "Cpus_allowed_list:\t0,4\n" in (machine.root / "proc/77/task/90/status").read_text()


def test_what_cannot_be_recorded_is_not_changed(machine):
    before = machine.settings()
    (machine.state / "write-back").mkdir(parents=True)
    told = machine.run("write-back", "apply", status=1)
    assert statuses(told) == ["FAILED", *["not tried"] * 3] and "recorded" in told[0], told
    assert machine.settings() == before


def test_a_setting_that_changes_another_restores_both(machine):
    before = machine.settings()
    machine.run("write-back", "apply")
    # As the kernel does when the bytes are written.
    machine.put("proc/sys/vm/dirty_ratio", 0)
    machine.put("proc/sys/vm/dirty_background_ratio", 0)
    machine.run("write-back", "apply")
    machine.run("write-back", "revert")
    assert machine.settings() == before


def test_only_root_changes_anything(scratch):
    """On the real machine, as somebody who couldn't."""
    user = [] if os.geteuid() else ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]
    environment = {key: value for key, value in os.environ.items() if key != "OTTLA_TUNING_ROOT"} | {"OTTLA_TUNING_STATE": str(scratch / "state")}
    # In a place that anybody can read.
    scratch.chmod(0o755)
    public = scratch / "tuning"
    shutil.copytree(TUNING, public)
    for script in ("apply", "revert", "swap"):
        arguments = ["apply"] if script == "swap" else []
        done = subprocess.run([*user, public / script, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "only root" in done.stderr and not done.stdout, done
    done = subprocess.run([*user, public / "apply", "--dry-run"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout, done
    assert not (scratch / "state").exists()


# ---- Profiles ----


def test_profiles_apply_all_of_theirs_and_give_way_to_each_other(tmp_path):
    (tmp_path / "fresh").mkdir()
    fresh = Machine(tmp_path / "fresh")
    machine = Machine(tmp_path)
    before = machine.settings()
    machine.run("apply", "latency")
    latency = machine.settings()
    assert set(machine.recorded()) == set(TUNERS) - {"isolation"}
    told = machine.run("apply", "throughput")
    fresh.run("apply", "throughput")
    # The same as if there had never been another profile.
    assert machine.settings() == fresh.settings() != latency
    assert {"smt", "cpu-idle", "io-workers"}.isdisjoint(machine.recorded())
    assert lines_of(told, "restored"), told
    machine.run("apply")
    assert machine.settings() == latency
    machine.run("revert")
    assert machine.settings() == before and not machine.recorded()
    assert machine.run("revert") == [f"nothing was changed: there is nothing in {machine.state}"]


def test_the_boot_loader_is_left_alone_unless_it_is_meant(machine):
    before = machine.settings()
    drop_in = machine.root / "etc/default/grub.d/ottla.cfg"
    machine.run("apply", "latency")
    assert not drop_in.exists()
    machine.run("apply", "latency", "--boot")
    line = drop_in.read_text().splitlines()[-1]
    assert line == 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=managed_irq,domain,1-3,5-7 nohz_full=1-3,5-7 rcu_nocbs=1-3,5-7 irqaffinity=0,4"'
    assert (machine.root / "boot/grub.cfg").read_text() == drop_in.read_text()
    told = "\n".join(machine.run("isolation", "check"))
    assert "reboot" in told and told.startswith("ok ")
    machine.put("proc/cmdline", "ro isolcpus=managed_irq,domain,1-3,5-7 nohz_full=1-3,5-7 rcu_nocbs=1-3,5-7 irqaffinity=0,4")
    assert "reboot" not in "\n".join(machine.run("isolation", "check"))
    machine.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz ro quiet")
    machine.run("revert")
    assert machine.settings() == before and (machine.root / "boot/grub.cfg").read_text() == ""


def test_without_a_drop_in_folder_the_parameters_are_told(machine):
    (machine.root / "etc/default/grub.d").rmdir()
    told, = machine.run("isolation", "apply", "--cpus", "2-3,6-7")
    assert told.startswith("not available here") and "nohz_full=2-3,6-7" in told and "irqaffinity=0-1,4-5" in told
    assert not machine.recorded()


def test_parameters_that_were_set_by_hand_are_fine(machine):
    machine.put("proc/cmdline", "ro isolcpus=managed_irq,domain,1-3,5-7 nohz_full=1-3,5-7 rcu_nocbs=1-3,5-7 irqaffinity=0,4")
    assert statuses(machine.run("isolation", "apply")) == ["ok"] and not machine.recorded()
    # What the kernel isolates are the event loops' CPUs.
    machine.put("sys/devices/system/cpu/isolated", "6-7")
    told, = machine.run("isolation", "check")
    assert told.startswith("would change") and "irqaffinity=0-5" in told


def test_settings_of_cpus_that_were_switched_off_are_restored(machine):
    before = machine.settings()
    machine.run("cpu-frequency", "apply")
    machine.run("smt", "apply")
    # As the kernel does.
    cpus = machine.root / "sys/devices/system/cpu"
    machine.put("sys/devices/system/cpu/online", "0-3")
    for cpu in range(4, 8):
        (cpus / f"cpu{cpu}/cpufreq").rename(cpus / f"cpu{cpu}/off")
    told = machine.run("apply", "throughput", "--only", "cpu-frequency")
    assert lines_of(told, "gone"), told
    machine.put("sys/devices/system/cpu/online", "0-7")
    for cpu in range(4, 8):
        (cpus / f"cpu{cpu}/off").rename(cpus / f"cpu{cpu}/cpufreq")
    told = machine.run("revert")
    assert "smt" in told[0] and machine.settings() == before and not machine.recorded()


def test_a_mistake_is_told_once(machine):
    for option, value in (("--cpus", "two"), ("--cpus", "3-1"), ("--cpus", "64"), ("--nic", "eth7")):
        for script in ("check", "apply"):
            assert machine.run(script, option, value, status=2) == []
            assert machine.complaints.startswith(f"{script}: {option}: ") and machine.complaints.count("\n") == 1


def test_tuners_can_be_chosen_and_left_out(machine):
    machine.run("apply", "--only", "swap,clock")
    assert set(machine.recorded()) == {"swap", "clock"}
    machine.run("apply", "--skip", ",".join(set(TUNERS) - {"swap", "numa"}))
    assert set(machine.recorded()) == {"swap", "clock", "numa"}
    machine.run("revert", "--skip", "numa")
    assert set(machine.recorded()) == {"numa"}
    for script, *arguments in (("apply", "--only", "swapp"), ("check", "beauty"), ("check", "--only"), ("check", "--boot"), ("revert", "latency"), ("apply", "--polish")):
        machine.run(script, *arguments, status=2)
        assert machine.complaints.startswith(f"{script}: ")


def test_check_can_fail_where_something_would_change(machine):
    machine.run("check")
    machine.run("check", "--strict", status=1)
    machine.run("apply", "latency", "--boot")
    machine.run("check", "--strict")
    machine.run("check", "throughput", "--strict", status=1)


def test_sysctls_are_given_as_a_file(machine):
    lines = machine.run("check", "--sysctl")
    assert "vm.swappiness = 1" in lines and "net.core.somaxconn = 4096" in lines
    for line in lines:
        name = re.fullmatch(r"([a-z0-9_.-]+) = (\d+)", line).group(1)
        assert (machine.root / "proc/sys" / name.replace(".", "/")).exists(), line


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_complete(machine, script):
    text = "\n".join(machine.run(script, "--help"))
    options = {"turn": ("with|without", "--only"), "check": ("--sysctl", "--strict", "--cpus", "--nic", "--dir"), "apply": ("--boot", "--dry-run", "--cpus", "--nic", "--dir"), "revert": ("--dry-run",)}
    for option in options[script] if script == "turn" else (*options[script], "--only", "--skip", "--help", "ok "):
        assert option in text, option


def test_a_paired_measurement_runs_with_and_without(machine):
    show = ("cat", str(machine.root / "proc/sys/vm/swappiness"))
    for side, shown in (("with", "1"), ("without", "60"), ("without", "60"), ("with", "1"), ("with", "1")):
        assert machine.run("turn", "swap", side, *show) == [shown]
    machine.run("revert", "--only", "swap")
    for wrong in (("swap", "with"), ("swapp", "with", *show), ("swap", "perhaps", *show)):
        assert machine.run("turn", *wrong, status=2) == []
    # The command's status is the slice's; without the setting there is no measurement.
    machine.run("turn", "swap", "without", "false", status=1)
    file = machine.root / "proc/sys/vm/swappiness"
    file.unlink()
    file.symlink_to("/dev/null")
    assert machine.run("turn", "swap", "with", "echo", "measured", status=1) == []


def test_masks_go_beyond_32_cpus(tmp_path):
    machine = Machine(tmp_path, cpus=72)
    machine.run("irq-affinity", "apply", "--cpus", "1-35,37-71")
    assert (machine.root / "proc/irq/30/smp_affinity").read_text().strip() == "10,00000001"
    machine.run("irq-affinity", "apply", "--profile", "throughput")
    # One queue after another, on all but the first physical core.
    assert [(machine.root / f"proc/irq/{irq}/smp_affinity").read_text().strip() for irq in (30, 31, 32, 40)] == ["2", "4", "8", "2"]
    machine.run("packet-steering", "apply")
    assert (machine.root / "sys/class/net/eth0/queues/rx-0/rps_cpus").read_text().strip() == "ff,ffffffef,fffffffe"
    assert mask(0, 36) == "00000010,00000001"


def test_a_volume_is_tuned_by_the_disks_that_it_is_made_of(machine):
    machine.put("sys/block/dm-0/queue/read_ahead_kb", 256)
    slaves = machine.root / "sys/block/dm-0/slaves"
    slaves.mkdir()
    (slaves / "nvme0n1p1").symlink_to("../../nvme0n1/nvme0n1p1")
    (machine.root / "sys/dev/block/253:0").symlink_to("../../block/dm-0")
    machine.put("proc/self/mountinfo", "22 21 253:0 / / rw - ext4 /dev/mapper/data rw")
    machine.run("disk-queue", "apply")
    found = machine.settings()
    assert found["sys/block/dm-0/queue/read_ahead_kb"] == found["sys/block/nvme0n1/queue/read_ahead_kb"] == "128"
    assert found["sys/block/nvme0n1/queue/scheduler"] == "none"


@pytest.mark.parametrize("before", ["rw,relatime", "rw", "rw,noatime", "rw,nosuid,relatime,discard"])
def test_options_of_a_mount_come_back_as_they_were(machine, before):
    machine.put("proc/self/mountinfo", f"22 21 259:1 / / {before} - xfs /dev/nvme0n1p1 rw")
    settings = machine.settings()
    machine.run("log-dir", "apply")
    assert "noatime" in machine.settings()["proc/self/mountinfo"] and "discard" not in machine.settings()["proc/self/mountinfo"]
    machine.run("log-dir", "revert")
    assert machine.settings() == settings


def test_irqbalance_is_not_fought_with(machine):
    machine.put("proc/5/comm", "irqbalance")
    told, = machine.run("irq-affinity", "apply")
    assert told.startswith("not available here") and "irqbalance" in told


# ---- The real machine, which is only looked at ----


def test_check_runs_on_this_machine():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTTLA_TUNING")}
    for profile in PROFILES:
        done = subprocess.run([TUNING / "check", profile], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and not done.stderr, done
        assert set(statuses(done.stdout.splitlines())) <= {"ok", "would change", "left as it is", "not available here"}, done.stdout


# ---- The texts ----


def scripts() -> list:
    return [TUNING / name for name in (*SCRIPTS, *TUNERS)]


def test_every_script_is_a_tuner_or_known():
    files = {path.name for path in TUNING.iterdir() if path.is_file() and os.access(path, os.X_OK)}
    assert files == {*SCRIPTS, *TUNERS}


def test_scripts_are_sound():
    for path in (*scripts(), TUNING / "lib.sh"):
        subprocess.run(["bash", "-n", path], check=True)
        assert len(path.read_text().splitlines()) <= 900, path
    if shutil.which("shellcheck"):
        # Without what the library has: following it from each script takes a minute.
        for arguments in ([TUNING / "lib.sh"], ["-e", "SC1091,SC2153", *scripts()]):
            done = subprocess.run(["shellcheck", *arguments], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_measuring_commands_exist():
    """Each `ottla bench` in the headers and the README has options that the program has."""
    helps = {}
    found = 0
    for path in (*scripts(), TUNING / "README.md"):
        for line in path.read_text().splitlines():
            for command in re.findall(r"ottla bench ([a-z0-9]+)([^`\n;]*)", line):
                scenario, rest = command
                if scenario not in helps:
                    helps[scenario] = subprocess.run([OTTLA_BIN, "bench", scenario, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
                for option in re.findall(r"--[a-z-]+", rest):
                    assert re.search(rf"{option}\b", helps[scenario]), (path.name, scenario, option)
                found += 1
    assert found >= len(TUNERS)
