`include "commands.svh"
// Between the buffer and the memory's port: LOAD reads bytes into the buffer, STORE writes elements as int8, a chunk a
// cycle.
module copy_unit #(
    parameter int WORD_BYTES = 16,
    parameter int MEMORY_LATENCY = 20
) (
    input  logic                        clk,
    input  logic                        rst,
    input  logic                        start_load,
    input  logic                        start_store,
    input  logic [WORD_BITS-1:0]        word,
    output logic                        done,
    output logic                        reading,       // LOAD
    output logic [19:0]                 memory_addr,
    output logic                        comes,         // a word that was read, and where it goes
    output logic [15:0]                 write_addr,
    output logic [15:0]                 write_count,
    output logic                        storing,       // STORE
    output logic [15:0]                 read_addr,
    output logic [15:0]                 read_pitch,
    input  logic [16*WORD_BYTES-1:0]    read_data,
    output logic [19:0]                 store_addr,
    output logic [7:0]                  store_count,
    output logic [8*WORD_BYTES-1:0]     store_data
);
    load_t  given_load, load;
    store_t given_store, store;
    assign given_load = word;
    assign given_store = word;

    logic [31:0] left;   // cycles after this one
    logic        busy;
    wire  [31:0] load_cycles = MEMORY_LATENCY + (32'(given_load.num_bytes) + WORD_BYTES - 1) / WORD_BYTES;
    wire  [31:0] store_cycles = 32'(given_store.count0) * 32'(given_store.count1) * 32'(given_store.count2);
    wire  [31:0] duration = start_load ? load_cycles : store_cycles;
    wire         start = start_load || start_store;
    assign done = start ? duration == 1 : busy && left == 0;

    // LOAD: a word a cycle from the second cycle on
    logic [31:0] asked;
    logic        loading;
    wire  [31:0] load_rest = 32'(load.num_bytes) - asked;
    assign reading = loading;
    assign memory_addr = load.in_addr + asked[19:0];
    delay_line #(.WIDTH(33), .CYCLES(MEMORY_LATENCY - 1)) way (
        .clk, .rst,
        .in ({reading, 16'(load.out_addr + asked[15:0]), load_rest > WORD_BYTES ? 16'(WORD_BYTES) : load_rest[15:0]}),
        .out({comes, write_addr, write_count})
    );

    // STORE: the chunk of counters (i2, i1, i0), from the second cycle on
    logic       chunks;
    logic [7:0] i0, i1, i2;
    wire        last0 = i0 + 1 == store.count0, last1 = i1 + 1 == store.count1, last2 = i2 + 1 == store.count2;
    assign storing = chunks;
    assign read_pitch = store.element_pitch;
    assign read_addr = store.in_addr + 16'(i0) * store.in_pitch0 + 16'(i1) * store.in_pitch1
        + 16'(i2) * store.in_pitch2;
    assign store_addr = store.out_addr + 20'(i0) * store.out_pitch0 + 20'(i1) * store.out_pitch1
        + 20'(i2) * store.out_pitch2;
    assign store_count = store.chunk;
    logic signed [15:0] narrow;
    always_comb begin
        store_data = '0;
        narrow = '0;
        for (int b = 0; b < WORD_BYTES; b = b + 1) begin
            narrow = $signed(read_data[16*b +: 16]) >>> store.shift;
            store_data[8*b +: 8] = narrow > 127 ? 8'h7f : narrow < -128 ? 8'h80 : narrow[7:0];
        end
    end

    always_ff @(posedge clk) begin
        if (rst) begin
            busy <= 1'b0;
            loading <= 1'b0;
            chunks <= 1'b0;
            left <= '0;
            {i0, i1, i2} <= '0;
        end else begin
            if (start) begin
                busy <= duration != 1;
                left <= duration - 2;
            end else if (busy) begin
                left <= left - 1'b1;
                if (left == 0) busy <= 1'b0;
            end
            if (start_load) begin
                load <= given_load;
                loading <= 1'b1;
                asked <= '0;
            end else if (loading) begin
                asked <= asked + WORD_BYTES;
                if (load_rest <= WORD_BYTES) loading <= 1'b0;
            end
            if (start_store) begin
                store <= given_store;
                chunks <= 1'b1;
                {i0, i1, i2} <= '0;
            end else if (chunks) begin
                i0 <= last0 ? '0 : i0 + 1'b1;
                if (last0) i1 <= last1 ? '0 : i1 + 1'b1;
                if (last0 && last1) i2 <= i2 + 1'b1;
                if (last0 && last1 && last2) chunks <= 1'b0;
            end
        end
    end
endmodule
