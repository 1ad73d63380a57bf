"""Makes data/files/: data in the forms that people have it in, and data/files.json: what pandas, pyarrow, polars and
`datasets` read from them. The texts were written for this.

    python make_data_files.py

Pinned versions (checked at start): datasets 4.8.4   pandas 3.1.1   polars 2.1.0   pyarrow 26.0.1
"""

import datetime
import decimal
import json
import math
import shutil
import sys
import zoneinfo
from pathlib import Path

import datasets
import numpy
import pandas
import polars
import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

OUT = Path(__file__).resolve().parent / "data" / "files"
PINNED = {"datasets": "4.8.4", "pandas": "3.1.1", "polars": "2.1.0", "pyarrow": "26.0.1"}
GOLDEN = {}

TEXTS = ["A warm film, and a funny one.", "Two hours of nothing: \"dull\".", "Lovely\nfrom the first line", "Grim; loud; long"]
LABELS = ["positive", "negative", "positive", "negative"]
STARS = [5, 1, 4, 2]
SHARES = [0.5, 2.0, 1e-9, None]
TABLE = {"text": TEXTS, "label": LABELS, "stars": STARS, "share": SHARES}


def plain(value):
    """A value for JSON; what is missing is null."""
    if value is pandas.NA or isinstance(value, float) and math.isnan(value):
        return None
    return value.item() if hasattr(value, "item") else value


def expect(name, fields, rows, **options):
    rows = [[plain(value) for value in row] for row in rows]
    GOLDEN[name] = {"fields": list(fields), "rows": rows, **({"options": options} if options else {})}


def expect_frame(name, frame, fields=None, **options):
    rows = frame.astype(object).values.tolist()
    expect(name, fields or [str(column) for column in frame.columns], rows, **options)


def expect_table(name, table):
    expect(name, table.column_names, [list(row.values()) for row in table.to_pylist()])


def read_csv(name, **how):
    """As texts: no cell is a number, and an empty one is an empty text."""
    return pandas.read_csv(OUT / name, dtype=str, keep_default_na=False, **how)


def write(name, text, encoding="utf-8"):
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def encodings():
    spam = [["ham", "Meet me at the café at nine", "", "", ""], ["spam", "WIN £1000 now, “free”", " call", "", ""], ["ham", "It’s late", "", "", ""]]
    lines = ["v1,v2,,,"] + [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in spam]
    write("kaggle.csv", "\r\n".join(lines) + "\r\n", "windows-1252")
    expect_frame("kaggle.csv", read_csv("kaggle.csv", encoding="windows-1252"), ["v1", "v2", "3", "4", "5"])
    texts = {
        "french.csv": ("latin-1", ["Un film chaleureux, drôle et léger à souhait", "Très décevant, même gâché"]),
        "russian.csv": ("windows-1251", ["Очень хороший и тёплый фильм", "Скучно и слишком длинно"]),
        "japanese.csv": ("shift_jis", ["とても温かい映画でした", "長くて退屈でした"]),
        "chinese.csv": ("gbk", ["这是一部温暖的电影，非常好看", "太长了，很无聊，不推荐"]),
        "polish.csv": ("iso-8859-2", ["Świetny i ciepły film, można oglądać", "Nudny, zbyt długi i źle zagrany"]),
    }
    for name, (encoding, (good, bad)) in texts.items():
        write(name, f'text,label\n"{good}",positive\n"{bad}",negative\n', encoding)
        # The detector can't tell all of these apart in two lines; the user can.
        options = {} if name in ("french.csv", "russian.csv", "japanese.csv", "chinese.csv") else {"encoding": encoding}
        expect_frame(name, read_csv(name, encoding=encoding), **options)
    frame = pandas.DataFrame({"text": ["Schön war’s", "naja, é"], "label": ["gut", "schlecht"]})
    frame.to_csv(OUT / "utf16.csv", index=False, encoding="utf-16")
    expect_frame("utf16.csv", read_csv("utf16.csv", encoding="utf-16"))
    for name, encoding in [("utf16le.csv", "utf-16-le"), ("utf16be.csv", "utf-16-be")]:
        frame.to_csv(OUT / name, index=False, encoding=encoding)
        expect_frame(name, read_csv(name, encoding=encoding))
    frame.to_csv(OUT / "utf8_bom.csv", index=False, encoding="utf-8-sig")
    expect_frame("utf8_bom.csv", read_csv("utf8_bom.csv", encoding="utf-8-sig"))
    for name, encoding in [("utf32.csv", "utf-32"), ("utf32be.csv", "utf-32-be"), ("utf32.jsonl", "utf-32-le")]:
        wide = pandas.DataFrame({"text": ["caf\u00e9 \U0001f600", "dull"], "label": ["good", "bad"]})
        text = wide.to_csv(index=False) if name.endswith("csv") else wide.to_json(orient="records", lines=True, force_ascii=False)
        write(name, text, encoding)
        expect_frame(name, wide)
    write("mail.csv", "text,label\n\u3068\u3066\u3082\u6e29\u304b\u3044\u6620\u753b,good\n\u9000\u5c48\u3067\u3057\u305f,bad\n", "iso-2022-jp")
    expect_frame("mail.csv", read_csv("mail.csv", encoding="iso-2022-jp"))
    write("mail.jsonl", json.dumps({"text": "\u6620\u753b"}, ensure_ascii=False) + "\n", "iso-2022-jp")
    expect("mail.jsonl", ["text"], [["\u6620\u753b"]], encoding="iso-2022-jp")
    write("utf16.jsonl", "\ufeff" + frame.to_json(orient="records", lines=True, force_ascii=False), "utf-16-le")
    expect_frame("utf16.jsonl", frame)


def separated():
    write("german.csv", 'Text;Bewertung;Note\r\n"Gut; sehr gut";positiv;1,5\r\nNicht schön, leider;negativ;4,0\r\n', "windows-1252")
    expect_frame("german.csv", read_csv("german.csv", sep=";", encoding="windows-1252"))
    for name, mark in [("pipe.csv", "|"), ("tabs.csv", "\t"), ("commas.tsv", ",")]:
        pandas.DataFrame(TABLE).to_csv(OUT / name, index=False, sep=mark)
        expect_frame(name, read_csv(name, sep=mark))
    write("sep.csv", 'sep=;\r\ntext;label\r\nfine, really;positive\r\n"poor; dull";negative\r\n')
    write("sep_comma.csv", 'sep=,\ntext,label\nfine,positive\n"poor, dull",negative\n')
    write("sep_pipe.csv", '"sep=|"\ntext|label\nfine, really|positive\npoor; dull|negative\n')
    for name, mark in [("sep.csv", ";"), ("sep_comma.csv", ","), ("sep_pipe.csv", "|")]:
        expect_frame(name, read_csv(name, sep=mark, skiprows=1))
    pandas.DataFrame(TABLE).to_csv(OUT / "index.csv")
    expect_frame("index.csv", read_csv("index.csv"), ["1", "text", "label", "stars", "share"])
    write("colon.csv", "text:label\nfine, really:positive\npoor; dull:negative\n")
    expect_frame("colon.csv", read_csv("colon.csv", sep=":"), delimiter=":")


def headless():
    cola = ["gj04\t1\t\tThe sailors rode the breeze clear of the rocks.", "gj04\t0\t*\tThe \"car honked down the road.",
            "gj04\t1\t\tThe weights made the rope stretch over the pulley."]
    news = ['"3","Oil prices rise again","Crude went up on Monday, traders said."', '"4","A new phone is here","It has two cameras."',
            '"2","The cup goes home","After ninety minutes, a goal."']
    sms = ["ham\tI will be home by nine", "spam\tCall now to claim your free prize today", "ham\tok", "ham\tsee you there", "spam\tfree entry in a weekly draw"]
    three = ["fine, really,positive", "poor and dull,negative"]
    write("cola.tsv", "\n".join(cola) + "\n")
    expect_frame("cola.tsv", read_csv("cola.tsv", sep="\t", header=None, quoting=3), ["1", "2", "3", "4"])
    write("news.csv", "\n".join(news) + "\n")
    expect_frame("news.csv", read_csv("news.csv", header=None), ["1", "2", "3"])
    write("sms.txt", "\n".join(sms) + "\n")
    expect_frame("sms.txt", read_csv("sms.txt", sep="\t", header=None, quoting=3), ["1", "2"])
    write("bare.csv", "\n".join(line.replace("fine, really", "fine") for line in three) + "\n")
    expect_frame("bare.csv", read_csv("bare.csv", header=None), ["1", "2"], no_header=True)


def json_files():
    frame = pandas.DataFrame(TABLE)
    frame.to_json(OUT / "lines.json", orient="records", lines=True)
    write("pretty.json", "\n".join(json.dumps(row, indent=2) for row in frame.astype(object).where(frame.notna(), None).to_dict("records")))
    write("pretty.jsonl", (OUT / "pretty.json").read_text())
    write("array.jsonl", frame.to_json(orient="records"))
    write("lists.json", json.dumps(TABLE, indent=1))
    for orient in ["columns", "index", "split", "table", "records"]:
        frame.to_json(OUT / f"{orient}.json", orient=orient, index=None if orient != "table" else False)
    frame.to_json(OUT / "values.json", orient="values")
    polars.DataFrame(TABLE).write_json(OUT / "polars.json")
    polars.DataFrame(TABLE).write_ndjson(OUT / "polars.ndjson")
    write("one_split.json", json.dumps({"train": frame.iloc[:2].to_dict("records"), "test": []}))
    expect_frame("one_split.json", frame.iloc[:2])
    write("wrapped.json", json.dumps({"version": "1.0", "examples": frame.iloc[:2].to_dict("records")}))
    write("one.json", json.dumps({"text": TEXTS[0], "label": LABELS[0]}))
    write("texts.json", json.dumps(TEXTS))
    expect_frame("lines.json", pandas.read_json(OUT / "lines.json", lines=True))
    for name in ["pretty.json", "pretty.jsonl", "array.jsonl", "lists.json", "columns.json", "index.json", "split.json", "table.json",
                 "records.json", "polars.json", "polars.ndjson"]:
        expect_frame(name, frame)
    expect_frame("values.json", frame, ["1", "2", "3", "4"])
    expect_frame("wrapped.json", frame.iloc[:2])
    expect("one.json", ["text", "label"], [[TEXTS[0], LABELS[0]]])
    expect("texts.json", ["text"], [[text] for text in TEXTS])


def folders():
    parts = {"pos": ["A warm film.\n", "Lovely,\nand funny."], "neg": ["Dull.", "Far too long: zéro."], "unsup": ["Who knows"]}
    for label, texts in parts.items():
        for i, text in enumerate(texts):
            write(f"imdb/{label}/{i}_{7 - i}.txt", text)
    write("imdb/urls_pos.txt", "not a text\n")
    rows = [[(OUT / name).read_text().rstrip("\n"), name.split("/")[1], name.removeprefix("imdb/")]
            for name in ["imdb/neg/0_7.txt", "imdb/neg/1_6.txt", "imdb/pos/0_7.txt", "imdb/pos/1_6.txt"]]
    expect("imdb", ["text", "label", "file"], rows)
    write("groups/sci.space/60862", "From: someone\n\nThe orbit decays.\n")
    write("groups/rec.autos/101551", "Subject: caf\xe9 racers\n\nA car.", "latin-1")
    expect("groups", ["text", "label", "file"], [["Subject: caf\xe9 racers\n\nA car.", "rec.autos", "rec.autos/101551"],
                                                 ["From: someone\n\nThe orbit decays.", "sci.space", "sci.space/60862"]])
    write("notes/b.txt", "second\n")
    write("notes/a.txt", "first\nof two lines")
    expect("notes", ["text", "file"], [["first\nof two lines", "a.txt"], ["second", "b.txt"]])


def texts():
    write("texts.txt", "A warm film, and a funny one.\n\n  Two hours; nothing\n\"Lovely\"\n")
    expect("texts.txt", ["text"], [["A warm film, and a funny one."], ["  Two hours; nothing"], ["\"Lovely\""]])
    prose = ["A warm film, and a funny one.", "Two hours; nothing happens, really, at all", "Dull."]
    write("prose", "\n".join(prose) + "\n")
    expect("prose", ["text"], [[line] for line in prose])
    even = ["I loved it, all of it", "It was long, and loud"]
    write("even.dat", "\n".join(even))
    expect("even.dat", ["text"], [[line] for line in even])
    write("windows.txt", "first line\r\nsecond, line\r\n")
    expect("windows.txt", ["text"], [["first line"], ["second, line"]])
    write("table.txt", "text\tlabel\nfine\tpositive\npoor\tnegative\n")
    expect_frame("table.txt", read_csv("table.txt", sep="\t"))
    write("json.txt", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n')
    expect("json.txt", ["text", "label"], [["a", 1], ["b", 0]])
    write("fasttext.txt", "__label__positive A warm film .\n__label__negative\tDull , and long .\n__label__not-so-good meh\n")
    rows = [["A warm film .", "positive"], ["Dull , and long .", "negative"], ["meh", "not-so-good"]]
    expect("fasttext.txt", ["text", "label"], rows)
    write("reviews.train", "__label__2 Great: A fine book\n__label__1 Poor: not for me\n")
    expect("reviews.train", ["text", "label"], [["Great: A fine book", "2"], ["Poor: not for me", "1"]])
    write("last.ft", "a fine book __label__good\nnot for me __label__bad\n__label__bad no\n")
    expect("last.ft", ["text", "label"], [["a fine book", "good"], ["not for me", "bad"], ["no", "bad"]])


def columns():
    table = pyarrow.table({**TABLE, "sure": [True, False, None, True], "single": pyarrow.array([0.1, 2.0, -3.5, None], pyarrow.float32())})
    long = pyarrow.table({"text": [f"the text number {i} of many, which are all alike" for i in range(300)], "label": [i % 3 for i in range(300)]})
    for codec in ["zstd", "lz4", "brotli", "gzip", "snappy", "none"]:
        for version in ["1.0", "2.0"]:
            name = f"{codec}_{version[0]}.parquet"
            pyarrow.parquet.write_table(table, OUT / name, compression=codec, data_page_version=version)
            expect_table(name, pyarrow.parquet.read_table(OUT / name))
    for codec in ["zstd", "lz4", "brotli"]:
        name = f"{codec}_long.parquet"
        how = {"use_dictionary": ["label"], "row_group_size": 120, "data_page_size": 2000}
        pyarrow.parquet.write_table(long, OUT / name, compression=codec, **how)
        name = f"{codec}_polars.parquet"
        polars.DataFrame(TABLE).write_parquet(OUT / name, compression=codec)
        expect_table(name, pyarrow.parquet.read_table(OUT / name))
    kinds = pyarrow.table({
        **TABLE,
        "tags": pyarrow.array([["a", "b"], [], None, ["c"]]),
        "word": pyarrow.array(["x", "y", "x", None]).dictionary_encode(),
        "large": pyarrow.array(["a", None, "c", "d"], pyarrow.large_string()),
        "sure": [True, False, None, True],
        "small": pyarrow.array([1, 2, 3, None], pyarrow.uint8()),
        "single": pyarrow.array([0.1, 2.0, -3.5, None], pyarrow.float32()),
    })
    nested = {"tags": [json.dumps(tags) if tags is not None else None for tags in kinds["tags"].to_pylist()]}
    rows = kinds.set_column(4, "tags", pyarrow.array(nested["tags"]))
    pyarrow.feather.write_feather(kinds, OUT / "kinds.feather", compression="uncompressed")
    expect_table("kinds.feather", rows)
    with pyarrow.ipc.new_stream(OUT / "stream.arrow", kinds.schema) as stream:
        stream.write_table(kinds, max_chunksize=3)
    expect_table("stream.arrow", rows)
    for compression in ["uncompressed", "lz4", "zstd"]:
        name = "polars.arrow" if compression == "uncompressed" else f"polars_{compression}.arrow"
        polars.DataFrame(TABLE).write_ipc(OUT / name, compression=compression)
        expect_table(name, pyarrow.table(TABLE))
    pandas.DataFrame(TABLE).to_feather(OUT / "lz4.feather")
    expect_table("lz4.feather", pyarrow.table(TABLE))
    for codec in ["lz4", "zstd"]:
        pyarrow.feather.write_feather(kinds, OUT / f"kinds_{codec}.feather", compression=codec)
        expect_table(f"kinds_{codec}.feather", rows)
        with pyarrow.ipc.new_stream(OUT / f"{codec}.arrows", kinds.schema, options=pyarrow.ipc.IpcWriteOptions(compression=codec)) as stream:
            stream.write_table(kinds, max_chunksize=3)
        expect_table(f"{codec}.arrows", rows)
        pyarrow.feather.write_feather(long, OUT / f"{codec}_long.feather", compression=codec, chunksize=120)


def written(value):
    """A value as the text or JSON that stands for it."""
    if isinstance(value, pandas.Timestamp | datetime.datetime):
        return str(value if value.tzinfo is None else value.astimezone(datetime.timezone.utc))
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return {name: written(element) for name, element in value}
    if isinstance(value, list):
        return [written(element) for element in value]
    if isinstance(value, dict):
        return {name: written(element) for name, element in value.items()}
    return value


def expect_written(name, table):
    values = [[written(value) for value in row.values()] for row in table.to_pylist()]
    expect(name, table.column_names, [[json.dumps(value) if isinstance(value, list | dict) else value for value in row] for row in values])


def times_and_nested():
    at = datetime.datetime(2024, 5, 17, 9, 30)
    half = at.replace(microsecond=500_000)
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    times = pyarrow.table({
        "day": pyarrow.array([at.date(), None, datetime.date(1969, 12, 31)]),
        "second": pyarrow.array([at, datetime.datetime(1900, 1, 1), None], pyarrow.timestamp("s")),
        "milli": pyarrow.array([at, half, None], pyarrow.timestamp("ms")),
        "micro": pyarrow.array([at, half.replace(microsecond=7), None], pyarrow.timestamp("us")),
        "nano": pyarrow.array([1_715_938_200_000_000_001, 0, None], pyarrow.timestamp("ns")),
        "utc": pyarrow.array([at, half, None], pyarrow.timestamp("us", "UTC")),
        "berlin": pyarrow.array([at.replace(tzinfo=berlin), half.replace(tzinfo=berlin), None], pyarrow.timestamp("ms", "Europe/Berlin")),
        "clock": pyarrow.array([at.time(), half.time(), None], pyarrow.time64("us")),
        "clock_milli": pyarrow.array([at.time(), half.time(), None], pyarrow.time32("ms")),
        "clock_nano": pyarrow.array([at.time(), half.time(), None], pyarrow.time64("ns")),
        "price": pyarrow.array([decimal.Decimal("1.50"), decimal.Decimal("-0.07"), None], pyarrow.decimal128(9, 2)),
        "whole": pyarrow.array([decimal.Decimal(12), decimal.Decimal(-3), None], pyarrow.decimal128(20, 0)),
        "half": pyarrow.array([numpy.float16(0.5), numpy.float16(-2), None], pyarrow.float16()),
        "bytes": pyarrow.array([b"a text", "é".encode(), None]),
    })
    nested = pyarrow.table({
        "tags": pyarrow.array([["a", "b \"c\""], [], None, [None, "d"]]),
        "about": pyarrow.array([{"year": 1999, "who": {"name": "A", "born": at.date()}}, {"year": None, "who": None}, None, {"year": 1, "who": {"name": None, "born": None}}]),
        "lists": pyarrow.array([[[1, 2], []], [None, [3]], None, []]),
        "shares": pyarrow.array([[0.5, 1e-9], None, [], [float("2")]]),
        "sure": pyarrow.array([[True, False], [None], [], None]),
        "people": pyarrow.array([[{"name": "A", "tags": ["x"]}, {"name": "B", "tags": None}], [], None, [{"name": "C", "tags": []}]]),
        "map": pyarrow.array([[("a", 1), ("b", None)], [("c", 3)], None, [("d", 4)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "when": pyarrow.array([[at], [half, None], None, []], pyarrow.list_(pyarrow.timestamp("us"))),
        "prices": pyarrow.array([[decimal.Decimal("1.50")], None, [], [decimal.Decimal("-0.07")]], pyarrow.list_(pyarrow.decimal128(9, 2))),
        "large": pyarrow.array([["a"], None, [], ["b"]], pyarrow.large_list(pyarrow.large_string())),
        "word": pyarrow.array([["x", "y"], None, [], ["x"]], pyarrow.list_(pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))),
        "text": ["one", "two", "three", "four"],
    })
    for name, table in [("times", times), ("nested", nested)]:
        pyarrow.parquet.write_table(table, OUT / f"{name}.parquet")
        pyarrow.parquet.write_table(table, OUT / f"{name}_2.parquet", compression="zstd", data_page_version="2.0", use_dictionary=False, row_group_size=2)
        pyarrow.feather.write_feather(table, OUT / f"{name}.feather", compression="zstd")
        for ending in [".parquet", "_2.parquet", ".feather"]:
            expect_written(name + ending, table)
    frame = polars.DataFrame({name: nested[name].to_pylist() for name in ["tags", "about", "lists", "people", "text"]})
    frame.write_parquet(OUT / "nested_polars.parquet")
    frame.write_ipc(OUT / "nested_polars.arrow", compression="lz4")
    for name in ["nested_polars.parquet", "nested_polars.arrow"]:
        expect_written(name, frame.to_arrow())
    image = pyarrow.table({"image": pyarrow.array([{"bytes": b"\xff\xd8", "path": "a.jpg"}]), "text": ["a dog"]})
    pyarrow.parquet.write_table(image, OUT / "image.parquet")
    pyarrow.feather.write_feather(image, OUT / "image.feather")
    for name in ["image.parquet", "image.feather"]:
        expect(name, ["image", "text"], [[json.dumps({"bytes": None, "path": "a.jpg"}), "a dog"]])


def saved():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    data = Dataset.from_dict({"text": TEXTS, "label": [int(label == "positive") for label in LABELS]}, features=features)
    data.save_to_disk(OUT / "saved", num_shards=2)
    expect("saved", ["text", "label"], [list(row.values()) for row in datasets.load_from_disk(OUT / "saved")])
    turned = data.select([3, 1])
    turned.save_to_disk(OUT / "saved_part")
    expect("saved_part", ["text", "label"], [list(row.values()) for row in datasets.load_from_disk(OUT / "saved_part")])
    DatasetDict(train=turned, test=turned).save_to_disk(OUT / "saved_splits")


def conversations():
    turns = [("system", "Be brief."), ("user", "Name a colour."), ("assistant", "Blue.")]
    several = [("user", "Hello"), ("assistant", "Hi."), ("user", "Name a city."), ("assistant", "Paris.")]
    openai = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in [turns, several]]
    write("messages.jsonl", "\n".join(json.dumps(row) for row in openai) + "\n")
    raw = [json.dumps(row["messages"]) for row in openai]
    past = "user: Hello\nassistant: Hi.\nuser: Name a city."
    expect("messages.jsonl", ["messages", "system", "user", "assistant"],
           [[raw[0], "Be brief.", "Name a colour.", "Blue."], [raw[1], None, past, "Paris."]])
    waiting = [{"messages": [{"role": "user", "content": "Hello"}]}, {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}]
    write("waiting.jsonl", "\n".join(json.dumps(row) for row in waiting))
    expect("waiting.jsonl", ["messages", "user", "assistant"],
           [[json.dumps(waiting[0]["messages"]), "Hello", None], [json.dumps(waiting[1]["messages"]), "Hello", "Hi."]])
    old = pyarrow.table({"messages": [{"role": [role for role, _ in talk], "content": [text for _, text in talk]} for talk in [turns, several]]})
    pyarrow.parquet.write_table(old, OUT / "messages_old.parquet")
    expect("messages_old.parquet", ["messages", "system", "user", "assistant"],
           [[json.dumps(row), *cells] for row, cells in zip(old["messages"].to_pylist(), [["Be brief.", "Name a colour.", "Blue."], [None, past, "Paris."]])])
    parts = [{"messages": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
                           {"role": "assistant", "content": "Hi."}], "id": 7}]
    write("parts.json", json.dumps(parts, indent=2))
    expect("parts.json", ["messages", "id", "system", "user", "assistant"], [[json.dumps(parts[0]["messages"]), 7, "Be kind.", "Hello", "Hi."]])
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    share = [{"id": f"t{i}", "conversations": [{"from": names[role], "value": text} for role, text in talk]} for i, talk in enumerate([turns, several])]
    write("sharegpt.json", json.dumps(share, indent=2))
    raw = [json.dumps(row["conversations"]) for row in share]
    expect("sharegpt.json", ["id", "conversations", "system", "user", "assistant"],
           [["t0", raw[0], "Be brief.", "Name a colour.", "Blue."], ["t1", raw[1], None, past, "Paris."]])
    alpaca = [{"instruction": "Name a colour.", "input": "", "output": "Blue."}, {"instruction": "Translate.", "input": "Hallo", "output": "Hello."}]
    write("alpaca.json", json.dumps(alpaca, indent=4))
    expect("alpaca.json", ["instruction", "input", "output"], [list(row.values()) for row in alpaca])
    pairs = [{"prompt": "Name a colour.\n\n###\n\n", "completion": " Blue. END"}, {"prompt": "Name a city.", "completion": " Paris."}]
    write("prompt_completion.jsonl", "\n".join(json.dumps(row) for row in pairs))
    expect("prompt_completion.jsonl", ["prompt", "completion"], [list(row.values()) for row in pairs])
    data = Dataset.from_list(openai)
    data.save_to_disk(OUT / "saved_messages")
    raw = [json.dumps(row["messages"]) for row in datasets.load_from_disk(OUT / "saved_messages")]
    rows = [["Be brief.", "Name a colour.", "Blue."], [None, past, "Paris."]]
    made = ["system", "user", "assistant"]
    expect("saved_messages", ["messages", *made], [[json_of, *row] for json_of, row in zip(raw, rows)])
    data.to_parquet(OUT / "messages.parquet")
    expect("messages.parquet", ["messages", *made], [[json_of, *row] for json_of, row in zip(raw, rows)])
    polars.DataFrame(share).write_parquet(OUT / "sharegpt.parquet")
    pandas.DataFrame(share).to_feather(OUT / "sharegpt.feather")
    for name in ["sharegpt.parquet", "sharegpt.feather"]:
        expect(name, ["id", "conversations", *made], [[talk["id"], json.dumps(talk["conversations"]), *row] for talk, row in zip(share, rows)])


def main():
    modules = {"datasets": datasets, "pandas": pandas, "polars": polars, "pyarrow": pyarrow}
    found = {name: module.__version__ for name, module in modules.items()}
    print("versions:", found)
    if found != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"these are not the pinned versions {PINNED}; --any-version goes on")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for make in [encodings, separated, headless, json_files, folders, texts, columns, times_and_nested, saved, conversations]:
        make()
    lines = [f"{json.dumps(name)}: {json.dumps(golden)}" for name, golden in sorted(GOLDEN.items())]
    (OUT.parent / "files.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
