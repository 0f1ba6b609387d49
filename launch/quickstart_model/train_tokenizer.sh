#!/bin/sh
# Trains tokenizer.model beside this script again, byte for byte, from the
# texts in DATA_DIR (default: ../shared/data/text beside the checkout), with
# Debian 12's spm_train 0.1.97 (apt-get install sentencepiece).
#   train_tokenizer.sh [DATA_DIR [OUTPUT]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "${1:-$here/../../../shared/data/text}" && pwd)
output=${2:-$here/tokenizer.model}
case $output in /*) ;; *) output=$PWD/$output ;; esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" # the model records the names of its inputs: keep them relative

# English whole (a web page's text is one JSON string a line), of the poems
# enough for about as many bytes.
python3 - "$data/en_c4.jsonl" >c4.txt <<'PYTHON'
import json, sys
sys.stdout.reconfigure(encoding="utf-8")
for line in open(sys.argv[1], encoding="utf-8"):
    print(json.loads(line)["text"])
PYTHON
{
  cat "$data/en_brown.txt" "$data/en_wiki.txt" c4.txt
  head -n 15000 "$data/zh_song_ci.txt"
  head -n 15000 "$data/zh_tang_poems.txt"
} >corpus.txt

# One thread and no sampling make the result depend on the texts only.
spm_train --input=corpus.txt --model_prefix=tokenizer --model_type=bpe \
  --vocab_size=8000 --character_coverage=0.985 --byte_fallback=true \
  --normalization_rule_name=identity --add_dummy_prefix=true \
  --remove_extra_whitespaces=false --allow_whitespace_only_pieces=true \
  --split_digits=true --max_sentence_length=16384 \
  --unk_id=0 --bos_id=1 --eos_id=2 --pad_id=-1 \
  --shuffle_input_sentence=false --num_threads=1 --minloglevel=1
mv tokenizer.model "$output"
