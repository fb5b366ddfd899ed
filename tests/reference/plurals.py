"""Plurals of nouns for things that pictures show, by two libraries that agree on them.

    python tests/reference/plurals.py /usr/share/wordnet

needs nltk 3.9.2, inflect 7.5.0 and the files of WordNet 3.0 (Debian's `wordnet-base`). Writes tests/reference/
plurals.tsv: singular and plural. They are COCO's 80 categories and the nouns of WordNet's files for animals, artifacts,
body parts, foods, natural objects, persons and plants that occur in its tagged texts. A plural is kept when inflect
makes it of the singular and WordNet's `morphy` makes the singular of it; COCO's are all kept. WordNet's irregular
plurals (`noun.exc`) of such nouns are kept, too.

Writes src/eval/plurals.tsv as well, which the metric reads: plurals that no rule of spelling leads back, with their
singulars, and words that stand in the plural only, with none. The first are all of `noun.exc` of nouns for such things,
unless WordNet knows the plural as a noun of its own (`stamina`, `cola`); the second are chosen by hand.
"""

import pathlib
import shutil
import sys
import tempfile

import inflect
import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader

HERE = pathlib.Path(__file__).parent
# Numbers of WordNet's files of nouns: animal, artifact, body, food, object, person, plant.
KINDS = {str(number) for number in [5, 6, 8, 13, 17, 18, 20]}
COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,"
    "snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,"
    "fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")

# The endings of src/eval/plural.rs.
RULES = [("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("oes", "o"), ("ies", "y"), ("men", "man")]
# Nouns of their own in WordNet, and plurals all the same.
ALSO = "brethren candelabra elves fungi graffiti oxen protozoa teeth".split()
# Not in `noun.exc`.
MORE = {"dice": "die", "people": "person", "staves": "staff", "quizzes": "quiz"}
# Their singular is another thing, or another kind of word.
ONLY_PLURAL = """arts bellows bifocals binoculars bitters bleachers bloomers boxers braces breeches briefs ceramics
checkers clothes corduroys customs darts draughts drawers dregs electronics eyeglasses falls fatigues fries glasses
goggles greens grits grounds headquarters irons jodhpurs khakis lees levis links means news outdoors outskirts overalls
pants physics pliers preserves provisions quarters remains savings scissors scrubs series shades shears shorts slacks
species specs spectacles spirits stocks sunglasses surroundings sweats tights togs trousers vibes victuals vitals waders
waters woods works""".split()


class Princeton(WordNetCorpusReader):
    """Without the mapping from other versions of WordNet."""

    def map_wn(self, version="wordnet"):
        return None


def open_wordnet(folder):
    """WordNet's own files with a list of their numbers for names, which Debian leaves out."""
    made = pathlib.Path(tempfile.mkdtemp())
    # nltk reads nothing outside of its own folders, nor through links.
    nltk.data.path.append(str(made))
    for file in pathlib.Path(folder).iterdir():
        shutil.copy(file, made / file.name)
    (made / "lexnames").write_text("".join(f"{number:02}\t{number}\t1\n" for number in range(45)))
    return Princeton(str(made), None)


def main():
    wordnet = open_wordnet(sys.argv[1])
    engine = inflect.engine()
    pairs = {}
    for name in COCO:
        pairs[(name, "people" if name == "person" else name if name in ("skis", "scissors") else engine.plural_noun(name))] = 0
    for synset in wordnet.all_synsets("n"):
        if synset.lexname() not in KINDS:
            continue
        for lemma in synset.lemmas():
            word = lemma.name()
            if word.isalpha() and word.islower() and len(word) > 2 and lemma.count() > 2:
                plural = engine.plural_noun(word)
                # Of a plural such as `stairs` inflect makes `stairss`.
                if plural and plural not in (word, word + "s" if word.endswith("s") else word) and wordnet.morphy(plural, "n") == word:
                    pairs[(word, plural)] = 0
    for line in (pathlib.Path(sys.argv[1]) / "noun.exc").read_text().splitlines():
        plural, *singulars = line.split(" ")
        for word in singulars:
            synsets = wordnet.synsets(word, "n")
            if plural.isalpha() and word.isalpha() and word != plural and synsets and synsets[0].lexname() in KINDS:
                if sum(lemma.count() for synset in synsets for lemma in synset.lemmas() if lemma.name() == word) > 0:
                    pairs[(word, plural)] = 0
    irregular = {word: "" for word in ONLY_PLURAL}
    for line in (pathlib.Path(sys.argv[1]) / "noun.exc").read_text().splitlines():
        plural, *singulars = line.split(" ")
        regular = [plural.removesuffix(ending) + instead for ending, instead in RULES if plural.endswith(ending)]
        singulars = sorted({word for word in singulars if word.isalpha() and word not in (plural, *regular)})
        pictured = any(synset.lexname() in KINDS for word in singulars for synset in wordnet.synsets(word, "n"))
        own = any(lemma.name() == plural for synset in wordnet.synsets(plural, "n") for lemma in synset.lemmas())
        if plural.isalpha() and pictured and (plural in ALSO or not own):
            irregular[plural] = " ".join(singulars)
    irregular |= MORE
    notice = "# From WordNet 3.0, Copyright 2006 by Princeton University; written by tests/reference/plurals.py.\n"
    lines = "".join(f"{plural}\t{singulars}\n" for plural, singulars in sorted(irregular.items()))
    (HERE / "../../src/eval/plurals.tsv").write_text(notice + lines)
    rows = sorted(pairs, key=lambda pair: (pair[0] not in COCO, pair))
    (HERE / "plurals.tsv").write_text("".join(f"{word}\t{plural}\n" for word, plural in rows))


main()
