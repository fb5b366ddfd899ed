"""Plurals of nouns for things that pictures show, by two libraries that agree on them.

    python tests/reference/plurals.py /usr/share/wordnet

needs nltk 3.9.2, inflect 7.5.0 and the files of WordNet 3.0 (Debian's `wordnet-base`). Writes tests/reference/
plurals.tsv: singular and plural. They are COCO's 80 categories and the nouns of WordNet's files for animals, artifacts,
body parts, foods, natural objects, persons and plants that occur in its tagged texts. A plural is kept when inflect
makes it of the singular and WordNet's `morphy` makes the singular of it; COCO's are all kept. WordNet's irregular
plurals (`noun.exc`) of such nouns are kept, too.
"""

import pathlib
import sys
import tempfile

import inflect
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


class Princeton(WordNetCorpusReader):
    """Without the mapping from other versions of WordNet."""

    def map_wn(self, version="wordnet"):
        return None


def open_wordnet(folder):
    """WordNet's own files with a list of their numbers for names, which Debian leaves out."""
    made = pathlib.Path(tempfile.mkdtemp())
    for file in pathlib.Path(folder).iterdir():
        (made / file.name).symlink_to(file.resolve())
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
    rows = sorted(pairs, key=lambda pair: (pair[0] not in COCO, pair))
    (HERE / "plurals.tsv").write_text("".join(f"{word}\t{plural}\n" for word, plural in rows))


main()
