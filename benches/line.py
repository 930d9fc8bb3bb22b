"""Lines of the table: what was measured on both sides, and whether it is enough."""
import statistics

from lab import Failure


class Line:
    """One line of the table. `ratio` is how many times better than the rival hdrive is."""

    def __init__(self, row, work, unit, goal, met, digits=0):
        self.row, self.work, self.unit, self.goal, self.met, self.digits = row, work, unit, goal, met, digits
        self.ours, self.theirs, self.rival, self.note = [], [], "", ""

    def figures(self):
        ours = statistics.median(self.ours) if self.ours else None
        theirs = statistics.median(self.theirs) if self.theirs else None
        ratio = None
        if ours and theirs:
            ratio = theirs / ours if self.unit in ("s", "MB") else ours / theirs
        return ours, theirs, ratio

    def verdict(self):
        ours, theirs, ratio = self.figures()
        try:
            return self.met(ours, ratio)
        except TypeError:  # no figure on one side
            return None

    def text(self):
        ours, theirs, ratio = self.figures()
        show = lambda v: "-" if v is None else f"{v:,.{self.digits}f} {self.unit}"
        rival = show(theirs) + (f" {self.rival}" if theirs is not None else "")
        met = {True: "met", False: "MISSED", None: "?"}[self.verdict()]
        note = f"\n{'':4}{self.note}" if self.note else ""
        return f"{self.work:<58} {show(ours):>15}  {rival:<30} {'-' if ratio is None else f'{ratio:.2f} x':>8}  {self.goal:<12} {met}{note}"

    def data(self):
        ours, theirs, ratio = self.figures()
        return dict(row=self.row, work=self.work, unit=self.unit, hdrive=ours, rival=theirs, rival_name=self.rival,
                    ratio=ratio, goal=self.goal, met=self.verdict(), note=self.note, hdrive_runs=self.ours, rival_runs=self.theirs)


HEAD = f"{'work':<58} {'hdrive':>15}  {'rival':<30} {'ratio':>8}  {'goal':<12} met"


def at_least(times):
    return dict(goal=f">= {times:g} x", met=lambda ours, ratio: ratio >= times)


def both(lab, line, ours, theirs):
    """Runs both sides in turns. A side that cannot be measured is left out, with the reason as a note."""
    for side, work in ((line.theirs, theirs), (line.ours, ours)) * lab.runs:
        if side is None or work is None:
            continue
        try:
            side.append(work())
        except Failure as e:
            if str(e) not in line.note:
                line.note = (line.note + "; " if line.note else "") + str(e)


def rate(size, seconds):
    return size / seconds / 1e6
