"""What a page shows: numbers, figures, explorers, exercises, claims."""

from helpers.page import claims, figures
from helpers.page.benchmarks import exponent, load_benchmarks, time_ratio
from helpers.page.exercises import check, guess
from helpers.page.explore import explore
from helpers.page.numbers import median, median_range, printed, spread
