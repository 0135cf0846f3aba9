#!/bin/sh
# Pretends to be configtxgen, osnadmin and peer for the tests: the network is a folder, and every change of it is counted and can be
# made to fail.
set -eu
S='@STATE@'
tool=${0##*/}
echo "$tool $*" >>"$S/runs"

ch='' orderer='' block='' version='' sequence='' package='' peers='' out='' words=''
while [ $# -gt 0 ]; do
  case $1 in
    -C | -c | --channelID | -channelID) ch=$2; shift 2 ;;
    -o) orderer=$2; shift 2 ;;
    -b | --config-block) block=$2; shift 2 ;;
    -v) version=$2; shift 2 ;;
    --sequence) sequence=$2; shift 2 ;;
    --package-id) package=$2; shift 2 ;;
    --peerAddresses) peers="$peers $2"; shift 2 ;;
    -outputBlock) out=$2; shift 2 ;;
    --tls | --bestEffort) shift ;;
    -*) shift 2 ;;
    *) words="$words $1"; shift ;;
  esac
done
set -- $words

# Counts a change and carries it out; fails before or after it when it was told to.
effect() {
  name=$1; shift
  n=$(($(cat "$S/count") + 1)); echo "$n" >"$S/count"
  read -r number when <"$S/fail"
  if [ "$n $when" = "$number before" ]; then echo "Error: killed before $name" >&2; exit 1; fi
  if [ "$n $when" = "$number settling" ]; then echo "Error: transaction invalidated with status (MVCC_READ_CONFLICT)" >&2; exit 1; fi
  "$@"
  echo "$name" >>"$S/effects"
  if [ "$n $when" = "$number after" ]; then echo "Error: killed after $name" >&2; exit 1; fi
}
put() { mkdir -p "$(dirname "$1")"; printf '%s\n' "$2" >"$1"; }
id_of() { echo "charter:$(sha256sum "$1" | cut -d' ' -f1)"; }
peer=$S/peer/${CORE_PEER_ADDRESS-}
msp=${CORE_PEER_LOCALMSPID-}

case "$tool $*" in
  "configtxgen ")
    # No two runs give the same bytes.
    made=$(cat "$S/made"); echo $((1 - made)) >"$S/made"
    case $out in
      *.expected.block) cp "$S/block.$made" "$out" ;;
      *) effect "block" cp "$S/block.$made" "$out" ;;
    esac ;;
  "osnadmin channel list")
    [ ! -e "$S/away/$orderer" ] || { echo "Error: Get \"http://$orderer\": dial tcp: connect: connection refused"; exit 1; }
    if [ -e "$S/orderer/$ch" ]; then printf 'Status: 200\n{"name":"%s"}\n' "$ch"
    else printf 'Status: 404\n{"error":"channel does not exist"}\n'; fi ;;
  "osnadmin channel join")
    mkdir -p "$S/orderer"
    effect "orderer" cp "$block" "$S/orderer/$ch"
    printf 'Status: 201\n{"name":"%s"}\n' "$ch" ;;
  "peer channel list")
    echo "Channels peers has joined: "
    ls "$peer/channels" 2>/dev/null || true ;;
  "peer channel fetch 0 "*)
    if [ -e "$S/away/$orderer" ]; then
      echo "Error: orderer client failed to connect to $orderer: context deadline exceeded" >&2; exit 1
    fi
    [ -e "$S/orderer/$ch" ] || { echo "Error: can't read the block: &{NOT_FOUND}" >&2; exit 1; }
    cp "$S/orderer/$ch" "$4" ;;
  "peer channel join")
    name=$(basename "$block" .block)
    cmp -s "$block" "$S/orderer/$name" || { echo "Error: another block" >&2; exit 1; }
    effect "join $msp" put "$peer/channels/$name" joined ;;
  "peer lifecycle chaincode calculatepackageid "*) id_of "$4" ;;
  "peer lifecycle chaincode queryinstalled")
    printf '{"installed_chaincodes":['
    first=''
    for id in $(cat "$peer/installed" 2>/dev/null); do printf '%s{"package_id":"%s"}' "$first" "$id"; first=,; done
    printf ']}\n' ;;
  "peer lifecycle chaincode install "*) effect "install $msp" put "$peer/installed" "$(id_of "$4")" ;;
  "peer lifecycle chaincode queryapproved")
    read -r v s p 2>/dev/null <"$S/approved/$ch/$msp" || s=none
    if [ "$s" != "$sequence" ]; then
      echo "Error: query failed with status: 500 - could not fetch approved chaincode definition (name: 'charter')" >&2; exit 1
    fi
    printf '{"sequence":%s,"version":"%s","source":{"Type":{"LocalPackage":{"package_id":"%s"}}}}\n' "$s" "$v" "$p" ;;
  "peer lifecycle chaincode approveformyorg")
    effect "approve $msp" put "$S/approved/$ch/$msp" "$version $sequence $package" ;;
  "peer lifecycle chaincode querycommitted")
    if read -r v s 2>/dev/null <"$S/committed/$ch"; then
      printf '{"chaincode_definitions":[{"name":"charter","version":"%s","sequence":%s}]}\n' "$v" "$s"
    else echo '{}'; fi ;;
  "peer lifecycle chaincode checkcommitreadiness")
    printf '{"approvals":{'
    first=''
    for file in "$S"/msp_of/*; do
      id=$(cat "$file"); v='' s=''
      read -r v s p 2>/dev/null <"$S/approved/$ch/$id" || true
      yes=false; [ "$v $s" != "$version $sequence" ] || yes=true
      printf '%s"%s":%s' "$first" "$id" "$yes"; first=,
    done
    printf '}}\n' ;;
  "peer lifecycle chaincode commit")
    asked=0
    for address in $peers; do
      if [ -e "$S/away/$address" ]; then
        echo "Error: failed to retrieve endorser client for commit: endorser client failed to connect to $address" >&2; exit 1
      fi
      [ -e "$S/approved/$ch/$(cat "$S/msp_of/$address")" ] || { echo "Error: not agreed" >&2; exit 1; }
      asked=$((asked + 1))
    done
    [ "$asked" -ge "$(cat "$S/enough")" ] || { echo "Error: endorsement policy failure" >&2; exit 1; }
    effect "commit" put "$S/committed/$ch" "$version $sequence" ;;
  *) echo "Error: unknown command $tool $*" >&2; exit 2 ;;
esac
