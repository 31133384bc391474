"""measure: what the benches stand on: processes and what they cost, load.c's clients, rounds, numbers in tables."""
import argparse, collections, contextlib, os, re, resource, shutil, signal, socket, statistics
import subprocess, sys, tempfile, time

LEVEL = 0.05  # a ratio so near to 1 is neither ahead nor behind
MORE_IS_BETTER = re.compile("MB/s|per s|of the line")

options = argparse.Namespace()  # of the bench that runs

class Failed(Exception):
    pass

# --- processes: every one started here stands in `running` until it was waited for ---

running = set()

def spawn(argv, **how):
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen([str(word) for word in argv], **quiet | how)
    running.add(process)
    return process

def tree(pid):
    """The pid and those of all its descendants."""
    children = collections.defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
            children[int(stat.read().rpartition(")")[2].split()[1])].append(int(name))
    found = [pid]
    for parent in found:
        found += children[parent]
    return found

def await_end(process, seconds):
    """The CPU seconds of the process and of its children, or None if it still runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        except ChildProcessError:  # Popen had waited for it, when it was interrupted
            running.discard(process)
            return 0.0
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            running.discard(process)
            return usage.ru_utime + usage.ru_stime
        time.sleep(0.002)

def end(process):
    """Ends a process in good order: its children first, so that it waits for them and their time is counted."""
    deadline = time.monotonic() + 1
    while len(tree(process.pid)) > 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.terminate()
    return await_end(process, 3) or kill(process)

def kill(process):
    for pid in tree(process.pid) if process.returncode is None else []:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return await_end(process, 10)

def numbers(load, timeout=20):
    """What a run of load prints."""
    try:
        out, err = load.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(load)
        raise Failed(f"load took more than {timeout} s")
    running.discard(load)
    if load.returncode != 0:
        raise Failed(f"load {load.args[1]}: {(err or b'').decode().strip()}, status {load.returncode}")
    return [float(word) for word in (out or err).split()]

def client(*words, timeout=20, **how):
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return numbers(spawn([options.load, *words], **pipes | how), timeout)

def serve(where):
    """A server of load's that listens; its pid."""
    server = spawn([options.load, "serve", where], stdout=subprocess.PIPE)
    server.stdout.readline()
    return server.pid

def cpu_seconds(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9

def cpu_of_tree(pid):
    """The same of a process and its descendants, and of those that they have waited for."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/stat") as stat:
            ticks += sum(int(field) for field in stat.read().rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")

def footprint(pid):
    """KiB of PSS and number of descriptors of a process tree."""
    pss = descriptors = 0
    for one in tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/smaps_rollup") as rollup:
            pss += int(re.search(r"^Pss: +(\d+)", rollup.read(), re.M)[1])
            descriptors += len(os.listdir(f"/proc/{one}/fd"))
    return pss, descriptors

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def await_answer(port, seconds=5):
    """One connection with one request: the whole way to the server is open."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"answer 0".ljust(32))
            if len(s.recv(32, socket.MSG_WAITALL)) == 32:
                return
        time.sleep(0.002)
    raise Failed("it does not answer")

# --- rounds ---

def take(measures, subjects, turn):
    """row -> subject -> value, of all measures that were asked for; another subject begins in each round."""
    first = turn % len(subjects)
    rows = {}
    for name in filter(options.measures.search, measures):
        for subject in subjects[first:] + subjects[:first]:
            try:
                for row, value in measures[name](subject).items():
                    rows.setdefault(row, {})[subject.name] = value
            except Failed as why:
                print(f"{options.bench}: {name}, {subject.name}: {why}", file=sys.stderr)
    return rows

def medians(rounds, names):
    return {n: statistics.median(v) for n in names if (v := [r[n] for r in rounds if n in r])}

# --- tables ---

def digits(value):
    if value is None:
        return "-".rjust(8)
    return f"{value:8.{0 if value >= 1000 else 1 if value >= 20 else 2 if value >= 1 else 3}f}"

def ratios(rounds, a, b):
    return sorted(r[a] / r[b] for r in rounds if a in r and r.get(b))

def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        model = re.search(r"^model name\s*: (.*)", cpuinfo.read(), re.M)
    return f"{os.cpu_count()} CPUs{', ' + model[1] if model else ''}, {os.uname().sysname} {os.uname().release}"

# --- a bench's frame ---

def options_of(description, measures, rounds=5):
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("relay", nargs="?", default="./relay")
    add("--quick", action="store_true", help="one round, a fourth of the load")
    add("--rounds", type=int, help=f"default: ROUNDS of the environment, or {rounds}, or 1 with --quick")
    add("--measures", type=re.compile, default="", metavar="REGEX", help="some of: " + " ".join(measures))
    add("--subjects", type=re.compile, default="", metavar="REGEX", help="some of them, as '^(relay|socat)$'")
    add("--load", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "load"))
    add("--idle", type=int, default=1000, metavar="N", help="so many idle connections")
    parser.parse_args(namespace=options)
    options.bench = os.path.basename(sys.argv[0])
    options.rounds = options.rounds or int(os.environ.get("ROUNDS", 1 if options.quick else rounds))
    options.bytes, options.seconds = (2**28, 0.3) if options.quick else (2**30, 0.6)
    options.load, options.relay = (os.path.abspath(path) for path in (options.load, options.relay))
    for binary in (options.load, options.relay):
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not there: run make first")

def run(body):
    """body(directory), as many descriptors as there may be, and nothing left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = tempfile.mkdtemp(prefix="relay-bench.")
    try:
        body(directory)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in list(running):
            kill(process)
        shutil.rmtree(directory)
