"""Puts the study's numbers, from its committed records, into the pages that tell them; with --check, names those out of
date. Words such as *above* or *level* are written by hand: read them anew where a number changed."""

import re
import sys
from pathlib import Path

import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import atomic
from sepcl_keras.course import outcomes
from sepcl_keras.course.slides import CLAIMS, MAIN_ROW, Contrast

ROOT = Path(__file__).resolve().parents[2]
LOG_MEL, LABELLED, TOLD = "log-mel statistics", "supervised encoder", ("holds", "fails", "absent", "undecided")
WITHOUT_LEARNING = (LOG_MEL, "random projection", "untrained encoder")
NUMBER = r"[+−]?\d+(?:\.\d+)?"
KINDS = {"<n>": NUMBER, "<ci>": rf"{NUMBER} \({NUMBER} to {NUMBER}\)", "<words>": r"[^|.]*?", "<all>": ".*?"}
COUNTS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


class Bank:
    """What a page says of one bank's whole replicates."""

    def __init__(self, found):
        self.found = {replicate: found[replicate] for replicate in outcomes.whole(found)}
        self.words = {metric: {} for metric in outcomes.METRICS}
        for metric, of in self.words.items():
            for number, verdict in outcomes.verdicts(self.found, metric).items():
                of.setdefault(verdict.word, []).append(number)

    def signed(self, higher, lower, metric="map"):
        """The mean of a row above another one, and its interval."""
        return outcomes.contrast(self.found, _above(higher, lower), metric).text

    def plain(self, *of):
        """The same, without signs where all of it is above zero."""
        text = self.signed(*of)
        return text if "−" in text else text.replace("+", "")

    def mean(self, name, metric):
        """A row's mean over the replicates."""
        return float(np.mean([results[name][metric] for results in self.found.values()]))

    def control(self, metric):
        """The best control without learning."""
        return max(WITHOUT_LEARNING, key=lambda name: self.mean(name, metric))

    def judged(self, metric):
        """Such as: one is absent (7), nine are undecided."""
        parts = []
        for word, numbers in sorted(self.words[metric].items(), key=lambda item: TOLD.index(item[0])):
            some = f"{COUNTS[len(numbers)]} {_verb(word, len(numbers))}"
            parts.append(some if word == "undecided" else f"{some} ({', '.join(map(str, numbers))})")
        return ", ".join(parts)


def _above(higher, lower):
    return Contrast("", (higher,), (lower,))


def _verb(word, number):
    if word in ("holds", "fails"):
        return word if number == 1 else word[:-1]
    return f"is {word}" if number == 1 else f"are {word}"


def passages(results):
    """Page → (text in which a kind in brackets stands for each number, those numbers)."""
    made, real = Bank(results["made"]), Bank(results["esc10"])
    banks, numbers = (made, real), [len(made.found), len(real.found)]
    whole, planned = min(numbers), f"of {outcomes.REPLICATES} planned replicates"
    totals = {word: sum(len(of.get(word, ())) for bank in banks for of in bank.words.values()) for word in TOLD}
    totals = ", ".join(f"{number} {_verb(word, number)}" for word, number in totals.items() if number)
    best = [bank.plain(MAIN_ROW, bank.control(metric), metric) for bank in banks for metric in outcomes.METRICS]
    labels = [bank.plain(LABELLED, MAIN_ROW, metric) for bank in banks for metric in outcomes.METRICS]
    one_label = [bank.plain(MAIN_ROW, LOG_MEL, "one_label") for bank in banks]
    levels = []
    for bank in banks:
        levels += [bank.mean(MAIN_ROW, "qbe"), bank.mean(bank.control("qbe"), "qbe"), bank.mean(LOG_MEL, "qbe_chance")]
    pair = "made sounds <ci>; <ci>. Recordings <ci>; <ci>"

    def everywhere(wanted):
        return [outcomes.contrast(bank.found, wanted, metric).text for bank in banks for metric in outcomes.METRICS]

    def claim(number):
        (wanted,) = CLAIMS[number - 1].contrasts
        return everywhere(wanted)

    readme = [
        (f"the first <words> {planned}", [" and ".join(map(str, dict.fromkeys(numbers)))]),
        ("mAP (how well test scenes are ranked for each class; 1 is perfect) is <ci> above", best[:1]),
        ("without learning, on recordings <ci>. An encoder trained with all labels is <n> and <n> above ours.",
         [best[2], *(labels[index].split()[0] for index in (0, 2))]),
        ("by sound: mAP <n> (best control <n>, chance <n>), on recordings <n> (<n>, <n>)", levels),
        ("linear mAP <ci> above log-mel statistics, on recordings <ci>", one_label),
        ("both kinds of sound) <words>.", [totals]),
    ]  # fmt: skip
    page = [
        ("Whole replicates of<all>\n\nWhat this says", [outcomes.report(results).removeprefix("Whole replicates of")]),
        ("untrained encoder by <ci> in mAP and <ci> in QbE on made sounds, <ci> and <ci> on", best),
        ("Training with labels is above ours by <ci> and <ci>, on recordings <ci> and <ci>.", labels),
        ("with shuffled places S2 loses <ci>", [made.plain("S2", "S2 with shuffled places", "qbe")]),
        ("log-mel statistics in linear mAP by <ci> on made sounds and by <ci> on recordings", one_label),
        ("it helps the linear classifier: <ci> in linear mAP",
         [made.signed(f"{MAIN_ROW} d=1024", MAIN_ROW, "linear_map")]),
        ("reach mAP <n> on recordings, where ours has <n>", [real.mean(name, "map") for name in (LOG_MEL, MAIN_ROW)]),
        ("Few replicates: <n> agree in their sign by luck alone one time in <n>,", [whole, 2 ** (whole - 1)]),
    ]  # fmt: skip
    failures = [
        (f"[results](results.md): <n> {planned} on made sounds and <n> on", numbers),
        ("on made sounds by mAP <words>; by QbE <words>. On recordings by mAP <words>; by QbE <words> |",
         [bank.judged(metric) for bank in banks for metric in outcomes.METRICS]),
        (f"empty crops), minus S2 | {pair}", everywhere(_above("true sources", "S2 without quiet channels"))),
        (f"d = 1,024 minus 128, +0.016 in the slides | {pair}", claim(9)),
        (f"mean of seven rows, +0.014 in the slides | {pair}", claim(7)),
        (f"coincidence four times as heavy in ours | {pair}",
         everywhere(_above(f"{MAIN_ROW}, coincidence 4", MAIN_ROW))),
        (f"minus mix-mix (on recordings it did help) | {pair}", everywhere(_above("mix-mix with mix-back", "mix-mix"))),
        ("ours minus log-mel statistics <ci>; on made sounds <ci>",
         [bank.signed(MAIN_ROW, LOG_MEL) for bank in (real, made)]),
    ]  # fmt: skip
    data = [
        (f"({name}) | <ci> | <n> |", [made.signed(name, MAIN_ROW), len(made.found)])
        for name in ("S2∨N joint", "S2 joint")
    ]
    book = Path("notebooks/book")
    return {"README.md": readme, book / "results.md": page, book / "did_not_work.md": failures, "data/README.md": data}


def filled(text, of_page):
    """A page's text with the numbers of its passages, floats to two decimals; its lines may break anywhere."""
    for passage, values in of_page:
        parts = re.split(f"({'|'.join(KINDS)})", passage)
        found = "".join(f"({KINDS[part]})" if part in KINDS else re.escape(part) for part in parts)
        found = list(re.finditer(re.sub(r"(\\?\s)+", r"\\s+", found), text, re.DOTALL))
        if len(found) != 1:
            raise BadInput(f"found {len(found)} times; expected once: {passage}")
        spans = found[0].regs[1:]
        for (start, end), value in reversed(list(zip(spans, values, strict=True))):
            told = f"{value:.2f}" if isinstance(value, float) else str(value)
            if text[start:end].split() != told.split():  # else its line breaks may stay
                text = f"{text[:start]}{told}{text[end:]}"
    return text


def main(arguments):
    stale = []
    for page, of_page in passages(outcomes.committed()).items():
        text = (ROOT / page).read_text(encoding="utf-8")
        try:
            new = filled(text, of_page)
        except BadInput as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 2
        if new == text:
            continue
        stale.append(str(page))
        if "--check" not in arguments:
            with atomic(ROOT / page) as temporary:
                temporary.write_text(new, encoding="utf-8")
    if stale:
        print(", ".join(stale) + (": other numbers than the records'." if "--check" in arguments else ": filled."))
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
