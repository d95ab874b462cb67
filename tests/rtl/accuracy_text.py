"""What docs/accuracy.md says between its tables."""

HEADING = """\
<!-- Written by `make accuracy`; changes by hand are lost. -->
# How approximate is cycle-approximate

The simulator stands beside RTL of the same machine: synthesizable SystemVerilog in `tests/rtl/hdl` (the shared bus with
its arbiter, the k-ary reduction tree, PEs with a matrix unit whose weights stream through two tile buffers, the root).
Schedules of the simulator are lowered to the RTL's commands and run on both, with integer data; every value that the
RTL computes is compared with NumPy's, and every grant of the bus and start in the tree with the simulator's.

```console
$ make accuracy
```

builds the RTL with Verilator, runs all cases and writes this page, every case to [accuracy.csv](accuracy.csv), and the
envelope that reports carry to `pe_sim/report/analysis/compared.json`. The same cases are tests where g++ is there.
A difference is what the RTL takes more than the simulator, in per cent of the RTL's cycles; compute, memory, bus and
tree say where its cycles come from.
"""

WHY_EDGES = """
Where a shape fills whole tiles there is no difference. At the edges of a matrix there are two, and a recurrence over
the tiles (`tests/rtl/programs/tiles.py`) accounts for every cycle of every case:

- memory: each tile begins at a new word of the memory. The simulator rounds the bytes of a whole matrix up to words,
  the RTL those of each tile.
- compute: a partial tile is loaded in less time than a whole one, but computed in as many cycles as there are rows.
  What overlaps with what is then decided tile by tile, not by the sums of both. The RTL can also be faster: the
  closed form fills with the first tile even where a later one is what has to be waited for.

The largest differences, all of them of matrices of a few tiles:
"""

WHY_STEPS = """\
A model of one layer (hidden 64, 16 heads of 4, FFN 128, vocabulary 96), embedding and LM head included, with int8
weights and cache, int16 activations and int32 partial sums. Told how long each piece of work takes in the RTL, the
simulator gives the RTL's cycles exactly: bus and tree add nothing. What is left comes from the work:

- compute: attention. The machine model lets scores and values begin without a first tile to fill, which is one tile's
  load or one pass's rows each; and edge tiles as above.
- memory: words of edge tiles, as above. A cache append takes the model's cycles, but for one word where K and V end in
  parts of a word: the RTL's memory has banks of 4 bytes with an address each, turned from word to word, so that the
  pieces that a token has in different tiles are written together. A memory without banks would write a word for each.
"""

LEFT_OUT = """
## What the model leaves out, and what a chip would add

What building it showed:

- **Behind a softmax merge a plain reduction has to leave each joint, not only enter it, after the merge.** The rule the
  project started from spoke of entering; two beats would have left one joint in the same cycle. The simulator now
  follows the hardware: through L levels a plain reduction directly behind a merge starts L (κs − κ) cycles later
  instead of (L − 1) (κs − κ).
- **The grant's way back is free.** A PE's request takes ρ to the arbiter, but it drives the bus ω cycles after the
  grant, wherever it is. On a real bus the grant travels as far as the request did: where ω is less than that, an idle
  bus costs ρ − ω cycles more a message. A busy one hides it, as the arbiter knows the next sender ahead.
- **All leaves of a reduction start in the cycle in which the last one is ready.** The RTL does it with an AND over all
  leaves and a start back to them, as wires without delay. A chip would let data flow up and wait at joints; its results
  come in the same cycle as long as all reductions are over the same PEs. Reductions over subtrees behind one of the
  whole tree would begin earlier by what the joints' pipelines hold.
- **First come, first served with ties by program order** needs the cycle of arrival and a stage number beside each
  request, and a comparator over all ports in one cycle.
- **The arbiter decides in the cycle of the last request,** and a command begins in the cycle in which what it waits for
  is there. A chip at a high clock would register both: one cycle more for each dependency between PEs and network.

What neither side has, and a chip would add: instruction fetch and decode (commands lie ready in the units here),
banks and conflicts of the activations' buffer (here everybody reads and writes it as he likes), refresh and row misses
of a DRAM as local memory (the model's `dram_bank` has rows, the RTL has a flat memory), clock crossings, retries.

What was not compared: overlap 2 and 3, bursts, `tree.downlink`, arbiters other than fifo, other interconnects,
several sequences or groups of PEs in a step, heads shared by several PEs, workflows other than the three, floating
point. Reports say so in their accuracy line.
"""

SYNTHESIS = """
## Gates

Yosys reads the whole array (a test sees to it), and maps bus and tree of 16-binary ({num_pes} PEs) to two-input gates.
A DFF is one bit; the memories are the requests that wait at the arbiter, 64 a port. Most of the DFFs are wires' time of
flight.
"""
