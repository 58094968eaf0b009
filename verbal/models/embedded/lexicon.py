"""What the codec knows of English: base forms, abbreviations, number words, and which words speak of which names."""

from __future__ import annotations

from functools import lru_cache

from verbal.models.embedded.vocabulary import KNOWN

_IRREGULAR = """
people:person persons:person children:child men:man women:woman taught:teach gave:give given:give got:get gotten:get
took:take taken:take made:make bought:buy sold:sell paid:pay won:win lost:lose wrote:write written:write held:hold
built:build went:go gone:go came:come sent:send flew:fly flown:fly led:lead spent:spend knew:know known:know kept:keep
saw:see seen:see told:tell found:find began:begin begun:begin chose:choose chosen:choose met:meet belonging:belong
studied:study died:die dying:die living:live lying:lie data:data series:series species:species status:status bus:bus
buses:bus gas:gas campus:campus bonus:bonus address:address class:class news:news sorted:sort priciest:expensive
pricier:expensive costliest:expensive costlier:expensive its:its his:his was:was has:has does:does this:this us:us
alphabetically:alphabetical exactly:exact recently:recent frequently:frequent commonly:common currently:current
newly:new uniquely:unique ordering:order listed:list lists:list named:name names:name men's:man sales:sale
purchased:purchase indices:index matrices:matrix analyses:analysis wives:wife knives:knife lives:live leaves:leaf
shelves:shelf wolves:wolf halves:half feet:foot teeth:tooth mice:mouse geese:goose oxen:ox driven:drive drove:drive
ran:run swam:swim movies:movie sang:sing sung:sing drew:draw drawn:draw grew:grow grown:grow ate:eat eaten:eat
hidden:hide rose:rise left:left ordered:order rated:rate ranked:rank based:base placed:place priced:price
paying:pay founded:found campuses:campus bonuses:bonus viruses:virus statuses:status surnames:surname
ids:id used:use uses:use using:use alphabetic:alphabetical lexicographic:alphabetical lexicographical:alphabetical
fewest:least min:minimum max:maximum avg:average mean:average info:information
mininum:minimum availability:available statuses:status
"""

IRREGULAR = dict(pair.split(":") for pair in _IRREGULAR.split())
"""Irregular word to base form."""

_ABBREVIATIONS = """
num:number nbr:number qty:quantity dept:department addr:address desc:description tel:phone telephone:phone mob:mobile
cust:customer emp:employee prod:product cat:category acct:account amt:amount avg:average max:maximum min:minimum
fname:first,name lname:last,name firstname:first,name lastname:last,name dob:birth,date yr:year mgr:manager
org:organization temp:temperature lat:latitude long:longitude lng:longitude pct:percent perc:percent pop:population
stu:student prof:professor ref:reference std:standard src:source dest:destination info:information loc:location
img:image msg:message pwd:password cnt:count tot:total bal:balance inv:invoice ord:order acc:account
jan:january feb:february mar:march apr:april jun:june jul:july aug:august sep:september oct:october
nov:november dec:december
sched:schedule sec:second mins:minute hrs:hour hr:hour wt:weight ht:height
lang:language nat:nationality univ:university apt:apartment bldg:building
ctr:center gov:government gnp:gnp stuid:student,id uid:user,id pid:pid sex:sex regno:registration,number
datetime:date,time timestamp:date,time datestamp:date zipcode:zip,code postcode:postal,code mpg:mpg hp:horsepower
surname:last,name forename:first,name
givenname:first,name familyname:last,name
birthdate:birth,date startdate:start,date enddate:end,date username:user,name filename:file,name songname:song,name
hiredate:hire,date homecity:home,city homepage:homepage deptname:department,name phonenumber:phone,number
"""

ABBREVIATIONS = {short: tuple(full.split(",")) for short, full in (pair.split(":") for pair in _ABBREVIATIONS.split())}
"""Parts of identifiers written short, with the words they stand for."""

_NUMBERS = """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty"""
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split(), start=2)} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
}
"""Number words that become values (`one` stays a word)."""

_GROUPS = """
customer client buyer shopper purchaser patron
employee worker staff staffer personnel
teacher instructor professor lecturer tutor educator
student pupil learner
person people individual human
singer vocalist
musician performer
author writer novelist
film movie picture
doctor physician medic
company firm corporation business enterprise
store shop outlet
product item good merchandise article
supplier vendor provider
manufacturer maker producer
car automobile vehicle
ship vessel boat
airplane plane aircraft
city town municipality
country nation
state province
location place venue site position
address residence
price cost fee charge
salary wage pay earnings income
revenue income earnings turnover
profit gain
amount quantity sum
job occupation profession work
department division unit
course class subject
competition contest tournament
match game
team club squad
gender sex
name title
description detail
phone telephone
photo picture image
song track
album record
member participant
owner holder proprietor
boss manager supervisor
leader head chief
grade mark score
rating rank score stars
year date
begin start
end finish
birthday birth
hometown origin
nationality citizenship
airport airfield
flight journey
trip journey travel
hospital clinic
illness disease
drug medicine medication
pet animal
language tongue
order purchase
invoice bill
stadium arena
population inhabitants people residents
duration length
size area
capacity seats
altitude elevation height
email mail
zip postal
district area region
category type kind
dish meal
book publication
kid child
dorm dormitory
code abbreviation acronym
"""

SYNONYMS: dict[str, tuple[str, ...]] = {}
"""A base form, and other words that may name the same thing (a weak link)."""
for _line in _GROUPS.strip().splitlines():
    _words = _line.split()
    for _word in _words:
        SYNONYMS[_word] = tuple(dict.fromkeys((*SYNONYMS.get(_word, ()), *(w for w in _words if w != _word))))

_CUES = """
old older oldest young younger youngest aged:age birthday birth / date year
cheap cheaper cheapest expensive pricey costly:price cost fee rate
heavy heavier heaviest light lighter lightest weigh:weight
tall taller tallest:height
high higher highest:height elevation altitude
long longer longest short shorter shortest last:length duration runtime distance / time
fast faster fastest slow slower slowest:speed / time
far farther farthest near nearer nearest:distance
large larger largest big bigger biggest small smaller smallest:size area population capacity surface
early earlier earliest late later latest recent newest newer new:date / year / time
when:date / year / time
where:location place / city / address / country / town state region
born:birth birthday birthplace
rich richer richest poor poorer poorest:salary income net budget worth money
earn paid pay:salary wage income pay
hot hotter hottest warm warmer warmest cold colder coldest cool:temperature
deep deeper deepest shallow:depth
best worst better worse good bad:rating score rank grade point
populous crowded inhabitant resident people:population
profitable:profit
valuable:value worth
hold seat accommodate:capacity seat
french german japanese american british chinese spanish italian indian canadian australian dutch:country nationality
male female man woman boy girl:gender sex
experienced:experience
attend:attendance
release publish:year date release publication
found establish:founded founder establishment creation
create:creation creation
graduate:graduation
locate base live:location city / country address state
weekday:day
successful:profit win gross
"""

CUES: dict[str, tuple[tuple[str, ...], ...]] = {}
"""A word of a question that is no name, and words of columns it may speak of (a weak link), likelier ones first."""
for _line in _CUES.strip().splitlines():
    _before, _after = _line.split(":")
    for _word in _before.split():
        CUES[_word] = (*CUES.get(_word, ()), *(tuple(_tier.split()) for _tier in _after.split("/")))

_CLOSED = """
a an the this that these those there here it its they their them he him his she her who whom whose what which when where
why how i me my we us our you your is are was were be been being do does did have has had having can could may should
will would not no none never without nor neither either both any some all each every other another such own only just
also too very so as than then of to for from by with at on in into out up down over under between among above below
before after since until during through across per about around within outside inside against off along beyond except
besides and or but if while though although again once one most more less fewer few many much
"""

CLOSED = frozenset(_CLOSED.split())
"""Words of grammar: never a name by themselves, and no part of a term."""

_ASKING = """
find show list give tell get return display provide identify determine compute calculate report retrieve print select
choose describe see know look need want please output sort order rank arrange group ascend descend increase decrease
alphabetical least first last next previous total average maximum minimum number count great greater greatest high
higher highest low lower lowest large larger largest small smaller smallest top bottom least most distinct different
unique various common frequent popular exist available use involve include contain belong associate correspond record
value start end begin time word letter substring all
"""

ASKING = frozenset(_ASKING.split())
"""Words of questions: a name only where they are the whole name."""

SEXES = {
    **dict.fromkeys(("female", "woman", "girl"), ("f", "female", "woman", "w")),
    **dict.fromkeys(("male", "man", "boy"), ("m", "male", "man")),
}
"""A word for a sex, and cells that say it."""

_ENDINGS = ("izations", "ization", "ations", "ation", "ments", "ment", "ings", "ing", "ions", "ion", "ers", "er", "ors")
_MORE_ENDINGS = ("or", "ed", "es", "al", "ity", "ly", "ance", "ence", "e", "y", "s")


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The base form of a lower-case word: plurals and known inflections are undone, other words stay."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in KNOWN or len(word) < 4:
        return word
    for candidate in _inflections(word):
        if candidate in KNOWN:
            return candidate
    return _singular(word)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zzes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _inflections(word: str) -> tuple[str, ...]:
    single = _singular(word)
    if word.endswith("ing") and len(word) > 5:
        body = word[:-3]
    elif word.endswith("ed"):
        body = word[:-2]
    else:
        return (single,)
    if len(body) < 3:
        return (single,)
    doubled = (body[:-1],) if len(body) > 3 and body[-1] == body[-2] else ()
    return (single, body, body + "e", *doubled, body[:-1] + "y" if body.endswith("i") else body)


@lru_cache(maxsize=65536)
def root(word: str) -> str:
    """What several words of one family share (`location`, `located`: `locat`); only good for weak links."""
    for ending in (*_ENDINGS, *_MORE_ENDINGS):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


@lru_cache(maxsize=65536)
def noun(word: str) -> str:
    """The form in which names are compared: plurals are undone, forms in -ed and -ing are not."""
    return "time" if word == "times" else word if word.endswith(("ed", "ing")) else stem(word)
