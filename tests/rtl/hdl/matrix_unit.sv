`include "commands.svh"
// OUTPUTS dot products of DEPTH multipliers each, fed tile by tile from the memory through two tile buffers.
//
// While one tile is computed with (a row of inputs a cycle) the next one is loaded (a word of the memory a cycle);
// without double buffering the next one is loaded when the tile before it is done with. Words that come while no tile
// buffer is free wait in a queue as deep as the memory's latency, so that going on costs nothing.
module matrix_unit #(
    parameter int OUTPUTS = 4,
    parameter int DEPTH = 4,
    parameter int LATENCY = 8,       // from the last product to its result
    parameter int WORD_BYTES = 16,   // of the memory, a cycle
    parameter int MEMORY_LATENCY = 20,
    parameter int MAX_ROWS = 64      // of a pass: accumulators
) (
    input  logic                            clk,
    input  logic                            rst,
    input  logic                            start,
    input  logic [WORD_BITS-1:0]            word,
    output logic                            done,        // its last cycle
    output logic                            reading,
    output logic [19:0]                     memory_addr,
    input  logic [8*WORD_BYTES-1:0]         memory_data, // MEMORY_LATENCY - 1 cycles after `reading`
    output logic [15:0]                     in_addr,
    output logic [15:0]                     in_pitch,
    input  logic [16*DEPTH-1:0]             in_data,
    output logic                            writing,     // OUTPUTS results, of which `write_count` count
    output logic                            write_narrow,
    output logic [15:0]                     write_addr,
    output logic [15:0]                     write_pitch,
    output logic [7:0]                      write_count,
    output logic [32*OUTPUTS-1:0]           write_data
);
    localparam int TILE = OUTPUTS * DEPTH;
    localparam int WAYS = MEMORY_LATENCY + 2;  // words on their way or in the queue
    localparam int WAY_BITS = $clog2(WAYS + 1);

    matrix_t given, command;
    logic    active;
    assign given = word;
    wire [11:0] outer_tiles = 12'((32'(command.outer) + OUTPUTS - 1) / OUTPUTS);
    wire [11:0] inner_tiles = 12'((32'(command.inner) + DEPTH - 1) / DEPTH);

    function automatic logic [7:0] part(input logic [11:0] size, input logic [11:0] tiles, input int whole);
        logic [31:0] rest;
        rest = 32'(size) - 32'(tiles) * whole;
        part = rest > whole ? 8'(whole) : rest[7:0];
    endfunction

    // ---- asking the memory: batch, pass, outer tile, inner tile, word
    logic        fetching;
    logic [7:0]  f_batch;
    logic [11:0] f_row, f_outer, f_inner;
    logic [15:0] f_byte;
    logic [WAY_BITS-1:0] credit;  // words that may still be asked for
    wire  [7:0]  f_outputs = part(command.outer, f_outer, OUTPUTS);
    wire  [7:0]  f_depth = part(command.inner, f_inner, DEPTH);
    wire  [15:0] f_bytes = 16'(f_outputs) * 16'(f_depth);
    wire         f_last_word = f_byte + 16'(WORD_BYTES) >= f_bytes;
    wire         f_last_inner = f_inner + 1 == inner_tiles;
    wire         f_last_outer = f_outer + 1 == outer_tiles;
    wire         f_last_pass = f_row + command.pass_rows >= command.rows;
    wire         f_last_batch = f_batch + 1 == command.batch;
    wire         take;            // a word leaves the queue
    assign reading = fetching && credit != 0;
    assign memory_addr = command.weight_addr + 20'(f_outer) * command.outer_pitch + 20'(f_inner) * command.inner_pitch
        + 20'(f_batch) * command.batch_pitch + 20'(f_byte);

    always_ff @(posedge clk) begin
        if (rst) begin
            fetching <= 1'b0;
            credit <= WAY_BITS'(WAYS);
        end else begin
            credit <= credit - WAY_BITS'(reading) + WAY_BITS'(take);
            if (start) begin
                fetching <= 1'b1;
                {f_batch, f_row, f_outer, f_inner, f_byte} <= '0;
            end else if (reading) begin
                f_byte <= f_last_word ? '0 : f_byte + 16'(WORD_BYTES);
                if (f_last_word) begin
                    f_inner <= f_last_inner ? '0 : f_inner + 1'b1;
                    if (f_last_inner) begin
                        f_outer <= f_last_outer ? '0 : f_outer + 1'b1;
                        if (f_last_outer) begin
                            f_row <= f_last_pass ? '0 : f_row + command.pass_rows;
                            if (f_last_pass) begin
                                f_batch <= f_batch + 1'b1;
                                if (f_last_batch) fetching <= 1'b0;
                            end
                        end
                    end
                end
            end
        end
    end

    // ---- words come back with the shape of their tile, and wait for a tile buffer
    logic        comes, came_first, came_last;
    logic [7:0]  came_outputs, came_depth;
    delay_line #(.WIDTH(19), .CYCLES(MEMORY_LATENCY - 1)) way (
        .clk, .rst,
        .in ({reading, f_byte == 0, f_last_word, f_outputs, f_depth}),
        .out({comes, came_first, came_last, came_outputs, came_depth})
    );
    localparam int ENTRY = 18 + 8 * WORD_BYTES;
    logic [ENTRY-1:0]    queue [WAYS];
    logic [WAY_BITS-1:0] q_head, q_tail, q_count;
    wire  [ENTRY-1:0]    entry = q_count != 0 ? queue[q_head]
                                              : {came_first, came_last, came_outputs, came_depth, memory_data};
    wire                 has_word = q_count != 0 || comes;
    wire                 w_first = entry[ENTRY-1];
    wire                 w_last = entry[ENTRY-2];
    wire  [7:0]          w_outputs = entry[ENTRY-3 -: 8];
    wire  [7:0]          w_depth = entry[ENTRY-11 -: 8];

    function automatic logic [WAY_BITS-1:0] after(input logic [WAY_BITS-1:0] at);
        after = at == WAY_BITS'(WAYS - 1) ? '0 : at + 1'b1;
    endfunction
    always_ff @(posedge clk) begin
        if (rst) {q_head, q_tail, q_count} <= '0;
        else begin
            if (comes && !(take && q_count == 0)) begin
                queue[q_tail] <= {came_first, came_last, came_outputs, came_depth, memory_data};
                q_tail <= after(q_tail);
            end
            if (take && q_count != 0) q_head <= after(q_head);
            q_count <= q_count + WAY_BITS'(comes) - WAY_BITS'(take);
        end
    end

    // ---- two tile buffers; positions of a word's bytes go on from those of the word before it
    logic [1:0]      full;
    logic            filling, using;
    logic [7:0]      at_output, at_depth;
    logic [7:0]      tile [2*TILE];
    logic [7:0]      next_output, next_depth, o, d;
    logic [31:0]     place [WORD_BYTES];
    logic [WORD_BYTES-1:0] kept;
    assign take = has_word && !full[filling];
    always_comb begin
        o = w_first ? '0 : at_output;
        d = w_first ? '0 : at_depth;
        for (int b = 0; b < WORD_BYTES; b = b + 1) begin
            kept[b] = o < w_outputs && d < w_depth;
            place[b] = 32'(o) * DEPTH + 32'(d);
            if (command.inner_major) begin
                o = o + 1'b1;
                if (o == w_outputs) begin o = '0; d = d + 1'b1; end
            end else begin
                d = d + 1'b1;
                if (d == w_depth) begin d = '0; o = o + 1'b1; end
            end
        end
        next_output = o;
        next_depth = d;
    end
    always_ff @(posedge clk)
        if (take) begin
            if (w_first)  // what a partial tile does not have is zero
                for (int t = 0; t < TILE; t = t + 1) tile[(filling ? TILE : 0) + t] <= '0;
            for (int t = 0; t < WORD_BYTES; t = t + 1)
                if (kept[t]) tile[(filling ? TILE : 0) + place[t]] <= entry[8*t +: 8];
            at_output <= next_output;
            at_depth <= next_depth;
        end

    // ---- computing: batch, pass, outer tile, inner tile, row
    logic        computing;
    logic [7:0]  c_batch;
    logic [11:0] c_first, c_outer, c_inner, c_row;
    wire  [11:0] c_rows = command.rows - c_first < command.pass_rows ? command.rows - c_first : command.pass_rows;
    wire         steps = computing && full[using];
    wire         c_last_row = c_row + 1 == c_rows;
    wire         c_last_inner = c_inner + 1 == inner_tiles;
    wire         c_last_outer = c_outer + 1 == outer_tiles;
    wire         c_last_pass = c_first + c_rows == command.rows;
    wire         c_last_batch = c_batch + 1 == command.batch;
    wire         tile_done = steps && c_last_row;
    wire         all_done = tile_done && c_last_inner && c_last_outer && c_last_pass && c_last_batch;
    wire  [7:0]  c_outputs = part(command.outer, c_outer, OUTPUTS);
    wire  [7:0]  c_depth = part(command.inner, c_inner, DEPTH);

    assign in_pitch = command.in_column_pitch;
    assign in_addr = command.in_addr + 16'(c_first + c_row) * command.in_row_pitch
        + 16'(32'(c_inner) * DEPTH) * command.in_column_pitch + 16'(c_batch) * command.in_batch_pitch;

    logic signed [31:0] sums [MAX_ROWS * OUTPUTS];
    logic [32*OUTPUTS-1:0] results;
    logic signed [31:0] sum;
    always_comb begin
        results = '0;
        sum = '0;
        for (int r = 0; r < OUTPUTS; r = r + 1) begin
            sum = c_inner == 0 ? '0 : sums[32'(c_row) * OUTPUTS + r];
            for (int k = 0; k < DEPTH; k = k + 1)
                if (k < 32'(c_depth))
                    sum = sum + $signed(in_data[16*k +: 16]) * $signed(tile[(using ? TILE : 0) + r * DEPTH + k]);
            results[32*r +: 32] = sum;
        end
    end
    always_ff @(posedge clk)
        if (steps) for (int s = 0; s < OUTPUTS; s = s + 1) sums[32'(c_row) * OUTPUTS + s] <= results[32*s +: 32];

    always_ff @(posedge clk) begin
        if (rst) begin
            active <= 1'b0;
            computing <= 1'b0;
            full <= '0;
            filling <= 1'b0;
            using <= 1'b0;
        end else begin
            if (start) begin
                command <= given;
                active <= 1'b1;
                computing <= 1'b1;
                {c_batch, c_first, c_outer, c_inner, c_row} <= '0;
            end
            if (take && w_last) begin
                full[filling] <= 1'b1;
                filling <= command.double_buffered ? !filling : filling;
            end
            if (steps) begin
                c_row <= c_last_row ? '0 : c_row + 1'b1;
                if (c_last_row) begin
                    full[using] <= 1'b0;
                    using <= command.double_buffered ? !using : using;
                    c_inner <= c_last_inner ? '0 : c_inner + 1'b1;
                    if (c_last_inner) begin
                        c_outer <= c_last_outer ? '0 : c_outer + 1'b1;
                        if (c_last_outer) begin
                            c_first <= c_last_pass ? '0 : c_first + command.pass_rows;
                            if (c_last_pass) c_batch <= c_batch + 1'b1;
                        end
                    end
                end
                if (all_done) computing <= 1'b0;
            end
            if (done) active <= 1'b0;
`ifndef SYNTHESIS
            assert (!(start && given.pass_rows > 12'(MAX_ROWS))) else $error("more rows in a pass than accumulators");
            assert (!(start && active)) else $error("the matrix unit is busy");
`endif
        end
    end

    // ---- results LATENCY cycles later, {batch pitches, row, column} added up beside them
    wire [15:0] out_addr = command.out_addr + 16'(c_first + c_row) * command.out_row_pitch
        + 16'(32'(c_outer) * OUTPUTS) * command.out_column_pitch + 16'(c_batch) * command.out_batch_pitch;
    logic [32*OUTPUTS-1:0] late_results;
    delay_line #(.WIDTH(32 * OUTPUTS + 26), .CYCLES(LATENCY)) pipeline (
        .clk, .rst,
        .in ({results, out_addr, c_outputs, steps && c_last_inner, all_done}),
        .out({late_results, write_addr, write_count, writing, done})
    );
    assign write_pitch = command.out_column_pitch;
    assign write_narrow = command.out_narrow;
    logic signed [31:0] shifted;
    always_comb begin
        write_data = late_results;
        shifted = '0;
        if (command.out_narrow)
            for (int n = 0; n < OUTPUTS; n = n + 1) begin
                shifted = $signed(late_results[32*n +: 32]) >>> command.shift;
                write_data[32*n +: 32] = shifted > 32767 ? 32767 : shifted < -32768 ? -32768 : shifted;
            end
    end
endmodule
