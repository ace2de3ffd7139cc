"""What a page shows: numbers, figures, explorers, exercises, claims."""

# fmt: off
from helpers.page.numbers import median, median_range, printed, spread
from helpers.page.figures import (
    COLOURS, DASHES, HEAT_COLOURS, INK, as_list, figure_html, heatmap, line, logarithmic, panel,
    power_of_ten, show, show_table,
)
from helpers.page.explore import Draw, Explorer, MOST_STATES, explore
from helpers.page.exercises import Feedback, check
from helpers.page.benchmarks import (
    HIGH, LOW, Methods, RESULTS, Timing, exponent, load_benchmarks, time_ratio,
)
from helpers.page.claims import (
    COMPARISONS, Claim, ClaimError, KINDS, LEDGER, NOTES, ON_PURPOSE, PASSING, RULE, SYMBOLS,
    UNTESTED, VERDICTS, bind, card, judge, ledger, verdicts,
)
