`include "commands.svh"
// A PE, or the root if it has no matrix unit: buffer, memory, counted slots, and a sequencer that runs its commands in
// order, one at a time. Its port of the bus and its leaf of the tree run lists of their own.
module unit #(
    parameter bit IS_ROOT = 0,
    parameter int OUTPUTS = 4,
    parameter int DEPTH = 4,
    parameter int MATRIX_LATENCY = 8,
    parameter int LANES = 4,
    parameter int VECTOR_LATENCY = 4,
    parameter int WORD_BYTES = 16,
    parameter int MEMORY_LATENCY = 20,
    parameter int BUS_BYTES = 8,
    parameter int BUS_OVERHEAD = 2,
    parameter int BUS_BEAT = 43 + 16 + 64,
    parameter int TREE_BYTES = 8,
    parameter int TREE_SIDE = 50,
    parameter int TREE_LEVELS = 2,
    parameter int BUFFER_BYTES = 16384,
    parameter int MEMORY_BYTES = 65536,
    parameter int COMMANDS = 128
) (
    input  logic                                               clk,
    input  logic                                               rst,
    input  logic                                               running,
    input  logic [7:0]                                         pe,          // its index; of no use at the root
    input  logic                                               host_write,
    input  logic [2:0]                                         host_space,
    input  logic [31:0]                                        host_addr,
    input  logic [63:0]                                        host_wdata,
    output logic [63:0]                                        host_rdata,
    output logic                                               idle,
    output logic                                               event_ends,  // something is complete after this cycle
    output logic                                               work_start,
    output logic                                               work_end,
    output logic                                               ask,
    output logic                                               ask_joins,
    output logic [15:0]                                        ask_order,
    output logic [16:0]                                        ask_cycles,
    input  logic                                               grant,
    output logic [BUS_BEAT-1:0]                                driven,
    input  logic [BUS_BEAT-1:0]                                heard,
    output logic                                               present,
    output logic [15:0]                                        order,
    output logic [3:0]                                         ends_at,
    output logic                                               merges,
    output logic [15:0]                                        beats,
    input  logic                                               tree_start,
    output logic [TREE_SIDE+8*TREE_BYTES-1:0]                  sent,
    input  logic [TREE_LEVELS:1][TREE_SIDE+8*TREE_BYTES-1:0]   results
); /* verilator no_inline_module */
    localparam int AT = $clog2(COMMANDS);
    localparam int SLOTS = 256;

    logic [7:0]           buffer [BUFFER_BYTES];
    logic [7:0]           memory [MEMORY_BYTES];
    logic [WORD_BITS-1:0] work_list [COMMANDS];
    logic [WORD_BITS-1:0] send_list [COMMANDS];
    logic [WORD_BITS-1:0] leaf_list [COMMANDS];
    logic [15:0]          work_length, send_length, leaf_length;
    logic [9:0]           slots [SLOTS];

    // Four (slot, count) pairs; the highest bit is of the first one.
    function automatic logic fulfilled(input logic [71:0] waits);
        fulfilled = 1'b1;
        for (int w = 0; w < 4; w = w + 1)
            fulfilled = fulfilled && slots[waits[18*w+10 +: 8]] >= waits[18*w +: 10];
    endfunction

    // ---- the sequencer
    logic [15:0]          index;
    logic                 working;  // a command that started before this cycle
    logic                 vector_done, matrix_done, copy_done;
    wire  [WORD_BITS-1:0] word = work_list[index[AT-1:0]];
    wire  [1:0]           op = word[WORD_BITS-1 -: 2];
    wire                  starts = running && !working && index < work_length && fulfilled(word[WORD_BITS-3 -: 72]);
    wire                  ends = vector_done || matrix_done || copy_done;
    wire  [7:0]           done_slot = word[WORD_BITS-75 -: 8];
    assign work_start = starts;
    assign work_end = ends;
    always_ff @(posedge clk) begin
        if (rst) begin
            index <= '0;
            working <= 1'b0;
        end else begin
            working <= (working || starts) && !ends;
            if (ends) index <= index + 1'b1;
        end
    end

    // ---- the memory's port: what is asked for in a cycle comes MEMORY_LATENCY - 1 cycles later
    logic                      matrix_reads, copy_reads, copy_comes;
    logic [19:0]               matrix_at, copy_at;
    logic [8*WORD_BYTES-1:0]   memory_word, memory_data;
    wire  [19:0]               memory_at = copy_reads ? copy_at : matrix_at;
    always_comb
        for (int m = 0; m < WORD_BYTES; m = m + 1) memory_word[8*m +: 8] = memory[(32'(memory_at) + m) % MEMORY_BYTES];
    delay_line #(.WIDTH(8 * WORD_BYTES), .CYCLES(MEMORY_LATENCY - 1)) access (
        .clk, .rst, .in(memory_word), .out(memory_data)
    );

    // ---- the matrix unit
    logic [15:0]           in_addr, in_pitch, out_addr, out_pitch;
    logic [16*DEPTH-1:0]   in_data;
    logic                  matrix_writes, matrix_narrow;
    logic [7:0]            matrix_count;
    logic [32*OUTPUTS-1:0] matrix_results;
    generate
        if (IS_ROOT) begin : g_no_matrix
            assign {matrix_done, matrix_reads, matrix_writes, matrix_narrow} = '0;
            assign {matrix_at, in_addr, in_pitch, out_addr, out_pitch, matrix_count, matrix_results} = '0;
        end else begin : g_matrix
            matrix_unit #(
                .OUTPUTS(OUTPUTS), .DEPTH(DEPTH), .LATENCY(MATRIX_LATENCY),
                .WORD_BYTES(WORD_BYTES), .MEMORY_LATENCY(MEMORY_LATENCY)
            ) matrix (
                .clk, .rst, .start(starts && op == OP_MATRIX), .word, .done(matrix_done),
                .reading(matrix_reads), .memory_addr(matrix_at), .memory_data,
                .in_addr, .in_pitch, .in_data,
                .writing(matrix_writes), .write_narrow(matrix_narrow), .write_addr(out_addr), .write_pitch(out_pitch),
                .write_count(matrix_count), .write_data(matrix_results)
            );
        end
    endgenerate

    // ---- the vector unit
    logic [15:0]         a_addr, b_addr, b_index, b_period, vector_addr;
    logic                a_narrow, b_narrow, vector_writes, vector_narrow, vector_pair;
    logic [7:0]          vector_count;
    logic [32*LANES-1:0] a_data, b_data, vector_results;
    logic [31:0]         vector_index;
    vector_unit #(.LANES(LANES), .LATENCY(VECTOR_LATENCY)) vector (
        .clk, .rst, .start(starts && op == OP_VECTOR), .word, .done(vector_done),
        .a_addr, .a_data, .b_addr, .b_index, .b_period, .a_narrow, .b_narrow, .b_data,
        .writing(vector_writes), .write_narrow(vector_narrow), .write_pair(vector_pair), .write_addr(vector_addr),
        .write_count(vector_count), .write_data(vector_results), .write_index(vector_index)
    );

    // ---- loads and stores
    localparam int UNIT = 4;
    localparam int BANKS = WORD_BYTES / UNIT > 0 ? WORD_BYTES / UNIT : 1;
    logic [15:0]               load_addr, load_count, store_pitch;
    logic [BANKS-1:0][15:0]    store_from;
    logic [16*UNIT*BANKS-1:0]  stored;
    logic [BANKS-1:0]          storing;
    logic                      widens;
    logic [BANKS-1:0][19:0]    store_addr;
    logic [BANKS-1:0][7:0]     store_count;
    logic [8*UNIT*BANKS-1:0]   store_data;
    copy_unit #(.WORD_BYTES(WORD_BYTES), .MEMORY_LATENCY(MEMORY_LATENCY), .UNIT(UNIT)) copy (
        .clk, .rst, .start_load(starts && op == OP_LOAD), .start_store(starts && op == OP_STORE), .word,
        .done(copy_done),
        .reading(copy_reads), .memory_addr(copy_at), .comes(copy_comes), .write_addr(load_addr), .write_count(load_count), .widens,
        .storing, .read_addr(store_from), .read_pitch(store_pitch), .read_data(stored),
        .store_addr, .store_count, .store_data
    );

    // ---- the port of the bus
    logic [15:0]             asking_for, driving, send_from;
    logic [16*BUS_BYTES-1:0] send_data;
    logic                    sends_done;
    wire  [WORD_BITS-1:0]    asking_word = send_list[asking_for[AT-1:0]];
    wire  [WORD_BITS-1:0]    driving_word = send_list[driving[AT-1:0]];
    bus_port #(.BYTES(BUS_BYTES), .OVERHEAD(BUS_OVERHEAD), .BEAT_BITS(BUS_BEAT)) bus_port (
        .clk, .rst, .running, .length(send_length), .asking_for, .driving, .asking_word, .driving_word,
        .ready(fulfilled(asking_word[WORD_BITS-1 -: 72])),
        .ask, .ask_joins, .ask_order, .ask_cycles, .grant, .read_addr(send_from), .read_data(send_data),
        .driven, .done(sends_done)
    );

    wire        h_valid = heard[BUS_BEAT-1];
    wire        h_last = heard[BUS_BEAT-2];
    wire        h_root = heard[BUS_BEAT-3];
    wire [7:0]  h_first = heard[BUS_BEAT-4 -: 8];
    wire [7:0]  h_end = heard[BUS_BEAT-12 -: 8];
    wire [7:0]  h_slot = heard[BUS_BEAT-20 -: 8];
    wire [15:0] h_bytes = heard[BUS_BEAT-28 -: 16];
    wire [15:0] h_addr = heard[8*BUS_BYTES +: 16];
    wire        hears = h_valid && (IS_ROOT ? h_root : !h_root && pe - h_first <= h_end - h_first);

    // ---- the leaf of the tree
    logic [15:0]             leaf_index, leaf_from;
    logic [8*TREE_BYTES-1:0] leaf_data;
    logic                    leaves_done;
    wire  [WORD_BITS-1:0]    leaf_word = leaf_list[leaf_index[AT-1:0]];
    leaf #(.BYTES(TREE_BYTES), .SIDE_BITS(TREE_SIDE)) leaf (
        .clk, .rst, .running, .length(leaf_length), .index(leaf_index), .word(leaf_word),
        .ready(fulfilled(leaf_word[WORD_BITS-1 -: 72])),
        .present, .order, .ends_at, .merges, .beats, .start(tree_start), .read_addr(leaf_from), .read_data(leaf_data),
        .sent, .done(leaves_done)
    );

    // A result that ends at this unit: of any level's joint whose lowest PE it is, or for the root of the last one.
    logic [TREE_LEVELS:1]        comes, comes_last;
    logic [TREE_LEVELS:1][15:0]  comes_addr, comes_bytes;
    logic [TREE_LEVELS:1][7:0]   comes_slot;
    always_comb
        for (int l = 1; l <= TREE_LEVELS; l = l + 1) begin
            comes[l] = results[l][TREE_SIDE+8*TREE_BYTES-1] && results[l][8*TREE_BYTES+40] == IS_ROOT;
            comes_last[l] = results[l][8*TREE_BYTES+41];
            comes_slot[l] = results[l][8*TREE_BYTES+32 +: 8];
            comes_bytes[l] = results[l][8*TREE_BYTES+16 +: 16];
            comes_addr[l] = results[l][8*TREE_BYTES +: 16];
        end

    // ---- the buffer: everybody reads and writes where it likes (a chip would have banks)
    function automatic logic [7:0] byte_at(input logic [31:0] address);
        byte_at = buffer[address % BUFFER_BYTES];
    endfunction
    function automatic logic [31:0] element(input logic [31:0] address, input logic narrow);
        logic [15:0] low;
        low = {byte_at(address + 1), byte_at(address)};
        element = narrow ? {{16{low[15]}}, low} : {byte_at(address + 3), byte_at(address + 2), low};
    endfunction
    logic [31:0] b_at;
    always_comb begin
        b_at = '0;
        for (int i = 0; i < DEPTH; i = i + 1)
            in_data[16*i +: 16] = 16'(element(32'(in_addr) + i * 32'(in_pitch), 1'b1));
        for (int i = 0; i < LANES; i = i + 1) begin
            a_data[32*i +: 32] = element(32'(a_addr) + i * (a_narrow ? 2 : 4), a_narrow);
            b_at = b_period == 0 ? '0 : (32'(b_index) + i) % 32'(b_period);
            b_data[32*i +: 32] = element(32'(b_addr) + b_at * (b_narrow ? 2 : 4), b_narrow);
        end
        for (int i = 0; i < UNIT * BANKS; i = i + 1)
            stored[16*i +: 16] = 16'(element(32'(store_from[i/UNIT]) + i % UNIT * 32'(store_pitch), 1'b1));
        for (int i = 0; i < 2 * BUS_BYTES; i = i + 1) send_data[8*i +: 8] = byte_at(32'(send_from) + i);
        for (int i = 0; i < TREE_BYTES; i = i + 1) leaf_data[8*i +: 8] = byte_at(32'(leaf_from) + i);
        for (int i = 0; i < 8; i = i + 1) host_rdata[8*i +: 8] = byte_at(host_addr + i);
    end

    always_ff @(posedge clk) begin
        if (matrix_writes)
            for (int w = 0; w < OUTPUTS; w = w + 1)
                if (w < 32'(matrix_count))
                    for (int v = 0; v < 4; v = v + 1)
                        if (v < 2 || !matrix_narrow)
                            buffer[(32'(out_addr) + w * 32'(out_pitch) + v) % BUFFER_BYTES]
                                <= matrix_results[32*w+8*v +: 8];
        if (vector_writes)
            for (int w = 0; w < LANES; w = w + 1)
                if (w < 32'(vector_count))
                    for (int v = 0; v < 4; v = v + 1)
                        if (v < 2 || !vector_narrow)
                            buffer[(32'(vector_addr) + w * (vector_narrow ? 2 : 4) + v) % BUFFER_BYTES]
                                <= vector_results[32*w+8*v +: 8];
        if (vector_writes && vector_pair)
            for (int v = 0; v < 4; v = v + 1)
                buffer[(32'(vector_addr) + 4 + v) % BUFFER_BYTES] <= vector_index[8*v +: 8];
        if (copy_comes)
            for (int w = 0; w < WORD_BYTES; w = w + 1)
                if (w < 32'(load_count)) begin
                    buffer[(32'(load_addr) + (widens ? 2 * w : w)) % BUFFER_BYTES] <= memory_data[8*w +: 8];
                    if (widens) buffer[(32'(load_addr) + 2 * w + 1) % BUFFER_BYTES] <= {8{memory_data[8*w+7]}};
                end
        if (hears)
            for (int w = 0; w < BUS_BYTES; w = w + 1)
                if (w < 32'(h_bytes)) buffer[(32'(h_addr) + w) % BUFFER_BYTES] <= heard[8*w +: 8];
        for (int v = 1; v <= TREE_LEVELS; v = v + 1)
            if (comes[v])
                for (int w = 0; w < TREE_BYTES; w = w + 1)
                    if (w < 32'(comes_bytes[v]))
                        buffer[(32'(comes_addr[v]) + w) % BUFFER_BYTES] <= results[v][8*w +: 8];
        if (host_write && host_space == 3)
            for (int w = 0; w < 8; w = w + 1) buffer[(host_addr + w) % BUFFER_BYTES] <= host_wdata[8*w +: 8];
    end
    always_ff @(posedge clk) begin
        for (int w = 0; w < UNIT * BANKS; w = w + 1)
            if (storing[w/UNIT] && w % UNIT < 32'(store_count[w/UNIT]))
                memory[(32'(store_addr[w/UNIT]) + w % UNIT) % MEMORY_BYTES] <= store_data[8*w +: 8];
        if (host_write && host_space == 4)
            for (int w = 0; w < 8; w = w + 1) memory[(host_addr + w) % MEMORY_BYTES] <= host_wdata[8*w +: 8];
    end

    // ---- what has happened, counted: by the sequencer, the bus, and joints of every level
    localparam int SOURCES = TREE_LEVELS + 2;
    logic [SOURCES-1:0]      counts;
    logic [SOURCES-1:0][7:0] counted_slot;
    logic [SOURCES-1:0][9:0] count_after;
    assign counts = {comes & comes_last, hears && h_last, ends};
    assign counted_slot = {comes_slot, h_slot, done_slot};
    always_comb
        for (int i = 0; i < SOURCES; i = i + 1) begin
            count_after[i] = slots[counted_slot[i]];
            for (int k = 0; k < SOURCES; k = k + 1)
                count_after[i] = count_after[i] + 10'(counts[k] && counted_slot[k] == counted_slot[i]);
        end
    always_ff @(posedge clk)
        if (rst) for (int i = 0; i < SLOTS; i = i + 1) slots[i] <= '0;
        else
            for (int i = 0; i < SOURCES; i = i + 1)
                if (counts[i]) slots[counted_slot[i]] <= count_after[i];  // equal slots get equal counts
    assign event_ends = |counts;
    assign idle = index == work_length && !working && sends_done && leaves_done;

    // ---- the host
    always_ff @(posedge clk)
        if (host_write) begin
            if (host_space == 0) work_list[host_addr[AT+2:3]][64*host_addr[2:0] +: 64] <= host_wdata;
            if (host_space == 1) send_list[host_addr[AT+2:3]][64*host_addr[2:0] +: 64] <= host_wdata;
            if (host_space == 2) leaf_list[host_addr[AT+2:3]][64*host_addr[2:0] +: 64] <= host_wdata;
            if (host_space == 5) {leaf_length, send_length, work_length} <= host_wdata[47:0];
        end
endmodule
