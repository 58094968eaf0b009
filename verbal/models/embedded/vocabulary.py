"""The embedded model's words: one list that fixes every token id. Changing it makes all trained weights useless.

A prompt is rewritten into these words before the model sees it: names and cells become slots, unknown words become
word slots, and what is left is plain English of questions.
"""

from __future__ import annotations

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
"""Padding, start of the prompt, end of the answer, and a word that never occurs in encoded text."""

MARKS = (
    *("<schema>", "<links>", "<question>", "<sql>", "<right>", "<result>", "<level>", "<hints>", "<values>"),
    *("<solve>", "<criticise>", "<reflect>", "<propose>"),
)
"""Starts of a prompt's sections; the last four start the answer of a role."""

SYNTAX = (
    *("select", "distinct", "from", "on", "where", "group_by", "having", "order_by", "asc", "desc", "limit"),
    *("union", "intersect", "except", "and", "or", "not", "(", ")", ",", "*", "+", "-", "/"),
    *("=", "!=", "<", ">", "<=", ">=", "between", "contains", "starts", "ends", "like", "in", "not_in", "not_like"),
    *("not_contains", "is_null", "not_null", "count", "sum", "avg", "min", "max", "year", "month", "'"),
)
"""Words of slot SQL; some of them are words of questions too."""

TYPES = ("int", "real", "text", "date", "cat", "key", "ref", "~", "?", "num", "yr", "day", ":", "|")
"""Kinds of columns and of values, and the mark of an uncertain link."""

REPLIES = (
    *("right", "wrong", "clause_select", "clause_from", "clause_where", "clause_group", "clause_having"),
    *("clause_order", "clause_limit", "clause_set", "means", "table", "column"),
)
"""Words of verdicts and hints."""

RESULTS = (
    *("error", "no_column", "no_table", "syntax", "timeout", "ambiguous", "rows_0", "rows_1", "rows_2", "rows_few"),
    *("rows_some", "rows_many", "cols_1", "cols_2", "cols_3", "cols_many", "nulls", "none"),
)
"""What execution said."""

COUNTS = {"a": 32, "b": 12, "c": 128, "t": 32, "v": 24, "u": 9, "w": 256}
"""Slots by family: column by mention, table by mention, column, table, value, category of a column, word."""

DIGITS = tuple(f"#{digit}" for digit in "0123456789.-")
"""Digits of a literal that the prompt does not hold."""

_ENGLISH = """
a an the this that these those there here it its they their them he his him she her who whom whose what which when where
why how i me my we us our you your is are was were be been being do does did have has had having can could may should
will would not no none never without nor neither either both any some all each every other another same such own only
just also too very so as than then of to for from by with at on in into out up down over under between among above below
before after since until during through across per about around within outside inside against off along beyond except
besides and or but if while though although again once twice one most more less fewer few many much several half
great greater greatest high higher highest low lower lowest large larger largest big bigger biggest small smaller
smallest old older oldest young younger youngest new newer newest long longer longest short shorter shortest early
earlier earliest late later latest recent good better best bad worse worst top bottom maximum minimum average total
overall combine altogether together number percentage ratio difference product times multiply divide plus minus exact
equal distinct different unique various duplicate repeat common rare frequent popular often ever still current now
find show list give tell get return display provide name identify determine compute calculate report retrieve print
select choose describe see know look need want please output sort order rank arrange group ascend descend increase
decrease alphabetical reverse least first last next previous current second third
information detail data database record row entry result value thing item kind type way case level word letter substring
text prefix begin start end contain include involve belong correspond associate relate link available exist appear occur
hold use make take work live come go play pay buy sell place receive send win lose teach study enroll register attend
participate join serve call publish release produce direct write born die found establish create build open close locate
base stay visit travel fly rate score cost spend earn weigh last host manage lead head hire employ supply offer assign
treat sign support share reach exceed match happen complete
cheap cheaper cheapest expensive pricey costly heavy heavier heaviest light lighter lightest tall taller tallest fast
faster fastest slow slower slowest rich richer richest poor poorer poorest strong weak hot hotter hottest warm warmer
warmest cold colder coldest cool far farther farthest near nearer nearest deep deeper deepest shallow thick thin wide
crowded modern main major minor active inactive past future male female single married full empty missing unknown
blank null valid more popular populous profitable successful valuable experienced
"""

_NOUNS = """
id code description comment note remark label status state category class gender sex age height weight length width
depth size area volume speed capacity duration distance altitude elevation temperature price amount fee salary wage
income revenue profit sale budget balance tax discount payment credit total quantity stock worth rating point star grade
gpa position round season year month week day date time hour minute birth birthday death period decade century city
country region county town district street address floor room zip postal location continent nation nationality language
population capital building hometown person people child man woman surname nickname middle family owner customer user
employee staff student manager title role job occupation profession department company organization school party team
member phone email fax url account
seat page attendance enrollment experience theme genre style color brand model format percent count unit count
pound dollar mile kilometer meter million thousand hundred winner loser purchase delivery shipment arrival departure
origin destination source target
"""


def _unique(*groups: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for group in groups for word in group))


SLOTS = tuple(f"{family}{number}" for family, size in COUNTS.items() for number in range(size))
"""Every slot token."""

KNOWN = frozenset(_ENGLISH.split()) | frozenset(_NOUNS.split())
"""English words that are tokens of their own; any other word becomes a word slot."""

VOCABULARY = _unique(
    SPECIAL, MARKS, SYNTAX, TYPES, REPLIES, RESULTS, DIGITS, list(SLOTS), _ENGLISH.split(), _NOUNS.split()
)
"""All tokens; the id of a token is its place."""

INDEX = {word: number for number, word in enumerate(VOCABULARY)}
"""Token to id."""
