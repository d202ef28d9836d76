#!/usr/bin/env python3
"""provenance.py DATABASE REPORT.html - is every number of a report what its printed SELECTs give?

Runs every printed SELECT with the sqlite3 program (read-only), compares the hash of what it prints with the report's, and
recomputes what the report shows from those rows alone, by formulas written down here once more: tables cell by cell as they are
printed, drawings by the numbers in their data- attributes. Needs Python's standard library and sqlite3, nothing else.
Exit 0: all agrees, with a count; 1: the first differences; 77: no sqlite3 program."""
import hashlib
import math
import shutil
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser

US, RS = "\x1f", "\x1e"  # no text of a database holds these


class Report(HTMLParser):
    """Figures by id: tables as rows of cell texts, statements, and everything in a drawing that carries data."""

    def __init__(self):
        super().__init__()
        self.figures, self.figure, self.text, self.row, self.statement = {}, None, None, None, None
        self.scripts = self.foreign = 0
        self.panel = None

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.scripts += tag == "script" or any(k.startswith("on") for k in a)
        self.foreign += any(str(a.get(k, "")).startswith(("http:", "https:", "//")) for k in ("src", "href")) or tag in ("link", "iframe", "img")
        if tag == "figure":
            self.figure = self.figures.setdefault(a["id"], {"rows": [], "sql": [], "marks": [], "caption": "", "made": ""})
        if self.figure is None:
            return
        if tag == "tr":
            self.row = []
            self.figure["rows"].append(self.row)
        elif tag in ("td", "th", "figcaption", "p"):
            self.text = ""
        elif tag == "pre" and a.get("class") == "sql":
            self.statement = dict(a)
            self.text = ""
        elif tag == "g" and "data-panel" in a:
            self.panel = a["data-panel"]
        if any(k.startswith("data-") for k in a) and tag in ("g", "path"):
            self.figure["marks"].append(dict(a, tag=tag, panel=self.panel))

    def handle_data(self, data):
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self.row is not None:
            self.row.append(self.text)
        elif tag == "figcaption" and self.figure is not None:
            self.figure["caption"] = self.text
        elif tag == "p" and self.figure is not None:
            self.figure["made"] = self.figure["made"] or self.text
        elif tag == "pre" and self.statement is not None:
            self.statement["sql"] = self.text
            self.figure["sql"].append(self.statement)
            self.statement = None
        elif tag == "figure":
            self.figure = None
        else:
            return
        self.text = None


class Check:
    def __init__(self, database, report):
        self.database, self.report, self.seen, self.wrong, self.counts = database, report, {}, [], defaultdict(int)

    def fail(self, text):
        self.wrong.append(text)

    def same(self, what, shown, found, tolerance=1e-6):
        self.counts["numbers"] += 1
        close = shown == found if not isinstance(found, float) else math.isclose(float(shown), found, rel_tol=tolerance, abs_tol=tolerance)
        if not close:
            self.fail("%s: the report says %s, its SELECTs give %s" % (what, shown, found))

    def cell(self, what, shown, found):
        self.counts["cells"] += 1
        if shown != found:
            self.fail("%s: the report prints '%s', its SELECTs give '%s'" % (what, shown, found))

    def sqlite(self, *words):
        r = subprocess.run(["sqlite3", "-readonly", *words], capture_output=True)
        if r.returncode:
            raise SystemExit("sqlite3: %s\n%s" % (r.stderr.decode(), words[-1]))
        return r.stdout

    def statement(self, figure, s):
        sql = s["sql"]
        if sql not in self.seen:
            printed = self.sqlite(self.database, sql)
            rows = self.sqlite("-separator", US, "-newline", RS, self.database, sql).decode()
            self.seen[sql] = (hashlib.sha256(printed).hexdigest(), [r.split(US) for r in rows.split(RS)[:-1]])
            self.counts["statements"] += 1
        digest, rows = self.seen[sql]
        if digest != s["data-sha256"] or len(rows) != int(s["data-rows"]):
            self.fail("%s: %s gives %d rows of hash %s, not %s of %s" % (figure, s["data-name"], len(rows), digest, s["data-rows"], s["data-sha256"]))
        if not sql.startswith(("SELECT", "WITH")) or s["data-for"] != figure:
            self.fail("%s: not a SELECT of its own: %s" % (figure, sql[:60]))
        return rows

    def rows(self, figure, name):
        """The rows of the figure's statement of that name; of several, all of them."""
        found = [s for s in self.report.figures[figure]["sql"] if s["data-name"] == name]
        if not found:
            raise SystemExit("%s has no statement '%s'" % (figure, name))
        return [r for s in found for r in self.seen[s["sql"]][1]]

    def named(self, figure, prefix):
        """{variant: rows} of the statements called 'prefix: variant'."""
        out = {}
        for s in self.report.figures[figure]["sql"]:
            if s["data-name"].startswith(prefix + ": "):
                out.setdefault(s["data-name"][len(prefix) + 2:], []).extend(self.seen[s["sql"]][1])
        return out


# --- statistics, written again -----------------------------------------------------------------------------------------------


def beta_fraction(a, b, x):
    """Continued fraction of the incomplete beta function (DLMF 8.17.22), modified Lentz."""
    tiny, c, d = 1e-300, 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    h = d
    for m in range(1, 10000):
        for numerator in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 + numerator * d
            c = 1 + numerator / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            h *= d * c
        if abs(d * c - 1) < 1e-15:
            return h
    raise ArithmeticError("the fraction does not converge")


def beta(a, b, x):
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    return front * beta_fraction(a, b, x) / a if x < (a + 1) / (a + b + 2) else 1 - front * beta_fraction(b, a, 1 - x) / b


def t_two_sided(t, df):
    return math.erfc(abs(t) / math.sqrt(2)) if math.isinf(df) else beta(df / 2, 0.5, df / (df + t * t))


def t_quantile(p, df):
    """Of 1 - p two-sided: t with P(|T| > t) = p."""
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) > p else (low, middle)
    return (low + high) / 2


def layout(cells):
    """{task: {seed: {number: value}}} -> the estimate, its variance and degrees of freedom (paired.h's formulas)."""
    tasks, k = list(cells), len(cells)
    seeds = sorted(cells[tasks[0]])
    n_seeds = len(seeds)
    means = {t: sum(sum(cells[t][s].values()) for s in seeds) / sum(len(cells[t][s]) for s in seeds) for t in tasks}
    value = sum(means.values()) / k
    if n_seeds == 1:
        v = 0.0
        for t in tasks:
            x = list(cells[t][seeds[0]].values())
            v += sum((y - means[t]) ** 2 for y in x) / (len(x) - 1) / len(x) / k**2
        return value, v, math.inf
    by_seed = [sum(sum(cells[t][s].values()) / len(cells[t][s]) for t in tasks) / k for s in seeds]
    s_d2 = sum((x - value) ** 2 for x in by_seed) / (n_seeds - 1)
    terms, first, second = [(s_d2 / n_seeds, n_seeds - 1)], s_d2 / n_seeds, 0.0
    for t in tasks:
        numbers = sorted(cells[t][seeds[0]])
        items = len(numbers)
        of_item = {i: sum(cells[t][s][i] for s in seeds) / n_seeds for i in numbers}
        of_seed = {s: sum(cells[t][s].values()) / items for s in seeds}
        ms_i = n_seeds * sum((of_item[i] - means[t]) ** 2 for i in numbers) / (items - 1)
        ms_e = sum((cells[t][s][i] - of_item[i] - of_seed[s] + means[t]) ** 2 for s in seeds for i in numbers) / ((items - 1) * (n_seeds - 1))
        share = 1 / (k * k * items * n_seeds)
        first += (ms_i - ms_e) * share
        second += ms_i * share
        terms += [(ms_i * share, items - 1), (ms_e * share, (items - 1) * (n_seeds - 1))]
    v = max(first, second)
    below = sum(x * x / df for x, df in terms)
    return value, v, v * v / below if below else math.inf


def wilson(right, n):
    z = t_quantile(0.05, math.inf)
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return middle - half, middle + half


def tango(b, c, n):
    """Score interval of a paired difference (Tango 1998), by bisection on the score statistic."""
    z = t_quantile(0.05, math.inf)

    def score(delta):
        a1, b1, c1 = 2 * n, -b - c + (2 * n - b + c) * delta, -c * delta * (1 - delta)
        q = (math.sqrt(max(b1 * b1 - 4 * a1 * c1, 0)) - b1) / (2 * a1)
        v = n * (2 * q + delta * (1 - delta))
        x = b - c - n * delta
        return x / math.sqrt(v) if v > 0 else (0.0 if x == 0 else math.copysign(math.inf, x))

    def root(target):
        low, high = -1.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > target else (low, middle)
        return (low + high) / 2

    return root(z), root(-z)


def interval(cells, accuracy):
    """(value, low, high), low None where there is none."""
    value, v, df = layout(cells)
    if len(cells) == 1 and len(next(iter(cells.values()))) == 1:
        x = list(next(iter(next(iter(cells.values())).values())).values())
        if accuracy:
            return (value, *wilson(sum(x), len(x)))
        return (value, *tango(x.count(1), x.count(-1), len(x)))
    if v <= 1e-18:
        return value, None, None
    half = t_quantile(0.05, df) * math.sqrt(v)
    low, high = value - half, value + half
    return (value, max(low, 0.0), min(high, 1.0)) if accuracy else (value, max(low, -1.0), min(high, 1.0))


def nested(rows, value):
    cells = defaultdict(lambda: defaultdict(dict))
    for r in rows:
        cells[r[0]][int(r[1])][int(r[2])] = value(r)
    return cells


# --- the figures --------------------------------------------------------------------------------------------------------------


def count(n):
    return "{:,}".format(int(n))


def numbers_of(mark, name):
    return [math.nan if x == "-" else float(x) for x in mark.get("data-" + name, "").split()]


def check_intervals(c, figure, prefix, value, accuracy):
    """A drawing of estimates against the answers they were computed from."""
    cells = {name: nested(rows, value) for name, rows in c.named(figure, prefix).items()}
    marks = [m for m in c.report.figures[figure]["marks"] if "data-group" in m]
    if not marks:
        c.fail("%s: nothing is drawn" % figure)
    for m in marks:
        name, group = m["data-series"], m["data-group"]
        side = cells[name] if name in cells else cells[name.removesuffix(" *")]
        of = side if group.startswith("mean of ") else {group: side[group]}
        what = "%s, %s, %s" % (figure, group, name)
        v, low, high = interval(of, accuracy)
        c.same(what, m["data-v"], 100 * v, 1e-9)
        if (low is None) != ("data-low" not in m):
            c.fail("%s: interval %s, %s" % (what, low, m.get("data-low")))
        elif low is not None:
            c.same(what + ", low", m["data-low"], 100 * low)
            c.same(what + ", high", m["data-high"], 100 * high)
        seeds = sorted(next(iter(of.values())))
        if len(seeds) > 1:
            dots = [100 * sum(sum(of[t][s].values()) / len(of[t][s]) for t in of) / len(of) for s in seeds]
            shown = numbers_of(m, "dots")
            c.same(what + ", seeds", len(shown), len(dots))
            for a, b in zip(shown, dots):
                c.same(what + ", a seed", a, b, 1e-9)
    return marks


def check_printed(c, table, drawing):
    """The drawing's numbers, which were recomputed, also stand in the table as it prints them."""
    rows = c.report.figures[table]["rows"][1:]
    for m in c.report.figures[drawing]["marks"]:
        if "data-group" not in m:
            continue
        name, sign = m["data-series"].removesuffix(" *"), "+" if table == "differences" else ""
        want = ["{:{}.1f}".format(float(m["data-" + k]), sign) for k in ("v", "low", "high") if "data-" + k in m]
        of = [r for r in rows if any(x == name or x.startswith(name + " ") for x in r) and m["data-group"] in r]
        c.counts["cells"] += 1
        if not any(all(w in " ".join(r) for w in want) for r in of):
            c.fail("%s: %s of %s is not printed for %s: %s" % (table, want, name, m["data-group"], of))


def check_curve(c, figure, name, x_at, y_at, panel_at=None):
    rows = c.rows(figure, name)
    by_run = defaultdict(list)
    for r in rows:
        by_run[(r[panel_at] if panel_at is not None else "", int(r[0]))].append((float(r[x_at]), float(r[y_at])))
    lines = [m for m in c.report.figures[figure]["marks"] if "data-x" in m and "data-series" in m]
    faint, means = defaultdict(list), []
    for m in lines:
        shown = list(zip(numbers_of(m, "x"), numbers_of(m, "y")))
        if "faint" in m["class"]:
            run = int(m["data-series"].rsplit(" ", 1)[1])
            of = [v for (p, r), v in by_run.items() if r == run]
            c.counts["numbers"] += len(shown)
            if not any(len(v) == len(shown) and all(math.isclose(a, b, rel_tol=1e-8, abs_tol=1e-9) for s, f in zip(shown, v) for a, b in zip(s, f)) for v in of):
                c.fail("%s: the line of %s is not in the rows" % (figure, m["data-series"]))
            faint[m["data-series"].rsplit(", run ", 1)[0]].append(shown)
        else:
            means.append((m["data-series"], shown))
    used = defaultdict(int)
    panels = max(1, len({p for p, _ in by_run}))
    for name, shown in means:
        runs = faint[name]
        c.counts["numbers"] += len(shown)
        if not runs:
            if not any(len(v) == len(shown) and all(math.isclose(a, b, rel_tol=1e-8, abs_tol=1e-9) for s, f in zip(shown, v) for a, b in zip(s, f)) for v in by_run.values()):
                c.fail("%s: the line of %s is not in the rows" % (figure, name))
            continue
        per = len(runs) // panels
        of = runs[used[name] * per:(used[name] + 1) * per]
        used[name] += 1
        for i, (x, y) in enumerate(shown):
            want = sum(r[i][1] for r in of) / per if all(r[i][0] == x for r in of) else math.nan
            if not (math.isnan(want) and math.isnan(y) or math.isclose(y, want, rel_tol=1e-7, abs_tol=1e-9)):
                c.fail("%s: the mean of %s at %s is %s, of its seeds %s" % (figure, name, x, y, want))


def slots_of(rows):
    """run -> task -> layer -> expert -> (slots, dropped)"""
    out = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for run, task, layer, expert, slots, dropped in rows:
        out[int(run)][task][int(layer)][int(expert)] = (int(slots), int(dropped))
    return out


def tokens_of(rows):
    out = defaultdict(lambda: defaultdict(dict))
    for run, task, layer, tokens, entropy in rows:
        out[int(run)][task][int(layer)] = (int(tokens), float(entropy))
    return out


def shares(slots, tasks, layer, experts):
    x = [sum(slots[t].get(layer, {}).get(e, (0, 0))[0] for t in tasks) for e in range(experts)]
    return [v / sum(x) for v in x] if sum(x) else None


def entropy(p):
    return -sum(x * math.log2(x) for x in p if x > 0)


def divergence(p, q):
    m = [(a + b) / 2 for a, b in zip(p, q)]
    return max(entropy(m) - (entropy(p) + entropy(q)) / 2, 0)


def shape(slots):
    return 1 + max(l for t in slots.values() for l in t), 1 + max(e for t in slots.values() for l in t.values() for e in l)


def measure(slots):
    layers, experts = shape(slots)
    by = {l: shares(slots, list(slots), l, experts) for l in range(layers)}
    return {l: (entropy(p), max(p) * experts, sum(x == 0 for x in p)) for l, p in by.items() if p}, layers, experts


def check_balance(c):
    slots, tokens = slots_of(c.rows("balance", "router: token slots")), tokens_of(c.rows("balance", "router: tokens"))
    rows = c.report.figures["balance"]["rows"][1:]
    c.same("balance, runs", len(rows), len(slots))
    for row in rows:
        run = int(row[1])
        by, _, experts = measure(slots[run])
        worst = max(by, key=lambda l: (by[l][1], -l))
        all_slots = sum(v[0] for t in slots[run].values() for l in t.values() for v in l.values())
        dropped = sum(v[1] for t in slots[run].values() for l in t.values() for v in l.values())
        seen = sum(v[0] for t in tokens[run].values() for v in t.values())
        nats = sum(v[1] for t in tokens[run].values() for v in t.values())
        want = [str(run), str(len(by)), str(experts), "%.2f" % (all_slots / seen), "%.2f of %.2f" % (sum(v[0] for v in by.values()) / len(by), math.log2(experts)),
                "%.2f" % (sum(v[1] for v in by.values()) / len(by)), str(worst), "%.2f" % by[worst][1], "%d of %d" % (sum(v[2] for v in by.values()), len(by) * experts),
                "%.1f" % (100 * dropped / (all_slots + dropped)), "%.2f" % (nats / seen / math.log(2))]
        for name, a, b in zip(c.report.figures["balance"]["rows"][0][1:], row[1:], want):
            c.cell("balance, run %d, %s" % (run, name), a, b)
    marks = [m for m in c.report.figures["balance-drawing"]["marks"] if "data-series" in m]
    for i, m in enumerate(marks):  # two panels, each with the same lines
        kind = int(i >= len(marks) // 2)
        runs = [int(m["data-series"].rsplit(" ", 1)[1])] if "faint" in m["class"] else [r for r in runs_of(c, "balance", m["data-series"]) if r in slots]
        by = [measure(slots[r])[0] for r in runs]
        for layer, a in enumerate(numbers_of(m, "y")):
            want = sum(x[layer][kind] for x in by) / len(by) if all(layer in x for x in by) else math.nan
            if not (math.isnan(a) and math.isnan(want)):
                c.same("balance-drawing, %s, layer %d" % (m["data-series"], layer), a, want)
    if not marks:
        c.fail("balance-drawing: nothing is drawn")


def check_heat(c, figure):
    slots = slots_of(c.rows(figure, "router: token slots"))
    words = c.report.figures[figure]["caption"]
    run = int(words[words.rindex(" Run ") + 5:].split(".")[0].split(" ")[0])
    marks = [m for m in c.report.figures[figure]["marks"] if "data-row" in m]
    layers, experts = shape(slots[run])
    c.same(figure + ", rows", len(marks), layers * len(slots[run]))
    for m in marks:
        p = shares(slots[run], [m["panel"]], int(m["data-row"]), experts)
        for a, b in zip(numbers_of(m, "v"), [math.nan] * experts if p is None else [100 * x for x in p]):
            if not (math.isnan(a) and math.isnan(b)):
                c.same("%s, %s, layer %s" % (figure, m["panel"], m["data-row"]), a, b, 1e-5)


def by_layer(slots, a, b):
    """Divergences of two tasks of one run, NaN where one of them used no expert."""
    layers, experts = shape(slots)
    out = []
    for l in range(layers):
        p, q = (shares(slots, [t], l, experts) for t in (a, b))
        out.append(divergence(p, q) if p and q else math.nan)
    return out


def mean(values):
    real = [x for x in values if not math.isnan(x)]
    return sum(real) / len(real)


def runs_of(c, figure, name):
    """The runs of a variant, as the words under the figure tell them."""
    words = c.report.figures[figure]["made"]
    at = words.index(name + ": run") + len(name) + 5
    return [int(x) for x in words[at:].lstrip("s ").split(" (")[0].split(", ")]


def check_divergence(c):
    slots, tokens = slots_of(c.rows("divergence", "router: token slots")), tokens_of(c.rows("divergence", "router: tokens"))
    rows = c.report.figures["divergence"]["rows"][1:]
    drawn = [m for m in c.report.figures["divergence-drawing"]["marks"] if "data-series" in m]
    names = list(dict.fromkeys(r[0] for r in rows))
    seen = set()
    for row in rows:
        runs = [r for r in runs_of(c, "divergence", row[0]) if r in slots]
        seen.update(runs)
        layers = [by_layer(slots[r], row[1], row[2]) for r in runs]
        means = [mean(x) for x in layers]
        most = [max(v[0] for r in runs for v in tokens[r][t].values()) for t in row[1:3]]
        want = [str(len(runs)), "%.4f" % mean(means), "%.4f" % min(means), "%.4f" % max(means), count(most[0]), count(most[1])]
        for a, b in zip(row[3:], want):
            c.cell("divergence, %s, %s and %s" % tuple(row[:3]), a, b)
        if len(drawn) == len(rows):  # a panel for each pair of tasks, and in it a line for each variant
            pairs = [r[1:3] for r in rows if r[0] == names[0]]
            line = drawn[pairs.index(row[1:3]) * len(names) + names.index(row[0])]
            for k, a in enumerate(numbers_of(line, "y")):
                c.same("divergence-drawing, %s, %s and %s, layer %d" % (*row[:3], k), a, sum(x[k] for x in layers) / len(layers))
    c.same("divergence, runs", len(seen), len(slots))


def check_course(c, figure):
    experts_of = defaultdict(lambda: defaultdict(dict))
    last = {}
    for part, layer, expert, slots, step in c.rows(figure, "router: training"):
        experts_of[int(layer)][int(part)][int(expert)] = int(slots)
        last[int(part)] = step
    marks = [m for m in c.report.figures[figure]["marks"] if "data-row" in m]
    first = [m for m in marks if m["panel"].startswith("largest")]
    load = {l: {k: [v / sum(x.values()) * len(x) for v in (x[e] for e in sorted(x))] if sum(x.values()) else None for k, x in parts.items()} for l, parts in experts_of.items()}
    for m in first:
        for k, a in enumerate(numbers_of(m, "v")):
            c.same("%s, layer %s" % (figure, m["data-row"]), a, float(max(load[int(m["data-row"])][k])), 1e-5)
    layer = int([m for m in marks if not m["panel"].startswith("largest")][0]["panel"].split()[3].rstrip(","))
    means = {l: sum(max(x) for x in parts.values()) / len(parts) for l, parts in load.items()}
    c.same(figure + ", the most uneven layer", means[layer], float(max(means.values())), 1e-12)
    for m in marks:
        if m["panel"] == first[0]["panel"]:
            continue
        for k, a in enumerate(numbers_of(m, "v")):
            c.same("%s, expert %s" % (figure, m["data-row"]), a, load[layer][k][int(m["data-row"])], 1e-5)


def check_pairs(c, figure):
    words = c.report.figures[figure]["caption"]
    run = int(words[words.rindex(" Run ") + 5:].split(".")[0])
    tokens = tokens_of(c.rows(figure, "router: tokens"))[run]
    pair = {(int(l), int(a), int(b)): int(n) for l, a, b, n in c.rows(figure, "router: pairs")}
    for m in c.report.figures[figure]["marks"]:
        if "data-row" not in m:
            continue
        layer, i = int(m["panel"].split()[1].rstrip(":")), int(m["data-row"])
        seen = sum(t[layer][0] for t in tokens.values() if layer in t)
        for j, v in enumerate(numbers_of(m, "v")):
            if i == j:
                c.same("%s: the diagonal" % figure, math.isnan(v), True)
            else:
                c.same("%s, layer %d, experts %d and %d" % (figure, layer, i, j), v, 100 * pair.get((layer, min(i, j), max(i, j)), 0) / seen, 1e-5)


def check_cells(c, figure, name, columns):
    """A table whose cells are its rows; `columns`: n for a number with commas."""
    rows, shown = c.rows(figure, name), c.report.figures[figure]["rows"][1:]
    c.same(figure + ", rows", len(shown), len(rows))
    for a, b in zip(shown, rows):
        for kind, x, y in zip(columns, a, b):
            c.cell(figure, x, count(y) if kind == "n" and y else y)


def large(x):
    return "%.2f G" % (x / 1e9) if x >= 1e9 else "%.2f M" % (x / 1e6) if x >= 1e6 else "%.1f k" % (x / 1e3) if x >= 1e4 else "%.0f" % x


def size(n):
    """As memory is printed: 0.61 GiB, 512 MiB."""
    value, units = int(n) / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while len(units) > 1 and value > 512:
        value, units = value / 1024, units[1:]
    digits = 2 if units[0] in ("GiB", "TiB") else 1 if value < 100 else 0
    return "%.*f %s" % (digits, value, units[0])


def check_budgets(c):
    budgets, scores = c.named("budgets", "budget"), c.named("budgets", "scores")
    head = c.report.figures["budgets"]["rows"][0]
    rows = {r[0]: dict(zip(head, r)) for r in c.report.figures["budgets"]["rows"][1:]}
    base = [n for n, r in rows.items() if r["times baseline"] == "baseline"]
    places = {}
    for name, found in budgets.items():
        row, what = rows[name], "budgets, " + name
        trained, router, flops = (int(found[0][i] or 0) for i in (2, 3, 4))
        told, memory = [float(r[5]) for r in found if r[5]], [float(r[6]) for r in found if r[6]]
        speed = sum(told) / len(told) if told else None
        c.cell(what, row["trained values"], count(trained))
        c.cell(what, row["router's"], count(router))
        if base and row["times baseline"] not in ("baseline", "trains nothing"):
            times = trained / int(budgets[base[0]][0][2])
            c.cell(what, row["times baseline"], "%.2f" % times)
            c.cell(what, row["budget"].split(";")[0], "unequal" if abs(times - 1) > 0.02 else "equal")
        c.cell(what, row["FLOPs/token"], large(flops) if flops else "")
        c.cell(what, row["tokens/s"], "%.0f" % speed if told else "")
        c.cell(what, row["memory"], size(max(memory)) if memory else "")
        c.cell(what, row["seeds"], str(len(found)))
        by_task = defaultdict(list)
        for r in scores.get(name, []):
            by_task[r[0]].append(float(r[5]))
        if by_task and row["accuracy, %"]:
            c.cell(what, row["accuracy, %"], "%.1f" % (100 * sum(sum(x) / len(x) for x in by_task.values()) / len(by_task)))
        places[name] = {"accuracy-values": trained, "accuracy-speed": speed, "accuracy-flops": flops}
    for figure in ("accuracy-values", "accuracy-speed", "accuracy-flops"):
        for m in c.report.figures.get(figure, {"marks": []})["marks"]:
            c.same("%s, %s" % (figure, m["data-series"]), m["data-x"], float(places[m["data-series"]][figure]), 1e-9)
            c.cell("%s, %s" % (figure, m["data-series"]), "%.1f" % float(m["data-v"]), rows[m["data-series"]]["accuracy, %"])


def check_other_scores(c, figure):
    """Another protocol's or metric's accuracies: their means stand in its table."""
    rows = c.report.figures[figure]["rows"][1:]
    for name, found in c.named(figure, "scores").items():
        by_task = defaultdict(list)
        for r in found:
            by_task[r[0]].append(float(r[5]))
        for task, values in by_task.items():
            want = "%.1f" % (100 * sum(values) / len(values))
            c.counts["cells"] += 1
            if not any(task in r and any(x == want or x.startswith(want + " (") for x in r) and any(x == name or x.startswith(name + " (") for x in r) for r in rows):
                c.fail("%s: %s of %s on %s is not printed" % (figure, want, name, task))


def check_words(c):
    rows = c.rows("words", "words that differ from their defaults")
    shown = c.report.figures["words"]["rows"]
    for r in rows:  # a stored word whose value is shown stands in its row
        for row in shown[1:]:
            if row[0] == r[1]:
                c.counts["cells"] += 1
                if r[2] not in row[1:]:
                    c.fail("words: %s of run %s, %s, is not printed" % (r[1], r[0], r[2]))
    stored = {r[1] for r in rows}
    for row in shown[1:]:
        if row[0] not in stored:
            c.fail("words: %s is no stored word" % row[0])


def main():
    if not shutil.which("sqlite3"):
        print("no sqlite3 program")
        return 77
    database, path = sys.argv[1:3]
    report = Report()
    report.feed(open(path, encoding="utf-8").read())
    c = Check(database, report)
    if report.scripts or report.foreign:
        c.fail("the page has %d scripts and %d things from elsewhere" % (report.scripts, report.foreign))
    for figure, f in report.figures.items():
        if not f["sql"]:
            c.fail("%s has no SELECT beside it" % figure)
        for s in f["sql"]:
            c.statement(figure, s)
    special = {
        "accuracy-drawing": lambda f: check_intervals(c, f, "answers", lambda r: int(r[3]), True),
        "differences-drawing": lambda f: check_intervals(c, f, "pairs", lambda r: int(r[3]) - int(r[4]), False),
        "accuracy": lambda f: check_printed(c, f, "accuracy-drawing"), "differences": lambda f: check_printed(c, f, "differences-drawing"),
        "losses": lambda f: check_curve(c, f, "curve: loss", 1, 2), "balance-losses": lambda f: check_curve(c, f, "curve: balance", 1, 2),
        "score-curves": lambda f: check_curve(c, f, "curve: scores", 2, 3, 1),
        "balance": lambda f: check_balance(c), "balance-drawing": lambda f: None, "divergence": lambda f: check_divergence(c), "divergence-drawing": lambda f: None,
        "budgets": lambda f: check_budgets(c), "accuracy-values": lambda f: None, "accuracy-speed": lambda f: None, "accuracy-flops": lambda f: None,
        "words": lambda f: check_words(c), "runs": lambda f: check_cells(c, f, "runs", "nttntnnntt"), "bases": lambda f: check_cells(c, f, "bases", "ttnt"),
        "data": lambda f: check_cells(c, f, "data", "ttnnt"), "environments": lambda f: check_cells(c, f, "environments", "nttn"),
    }
    patterns = {"router-course-": check_course, "router-": check_heat, "pairs-": check_pairs, "accuracy-": check_other_scores}
    for figure in report.figures:
        check = special.get(figure) or next((lambda f, p=p: patterns[p](c, f) for p in patterns if figure.startswith(p)), None)
        if check is None:
            c.fail("%s: nobody checks this figure" % figure)
        else:
            check(figure)
    for text in c.wrong[:20]:
        print(text)
    print("%d figures, %d statements, %d cells and %d drawn numbers: %s" % (len(report.figures), c.counts["statements"], c.counts["cells"], c.counts["numbers"],
                                                                       "%d differences" % len(c.wrong) if c.wrong else "all agree"))
    return 1 if c.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
