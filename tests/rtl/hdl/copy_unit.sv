`include "commands.svh"
// Between the buffer and the memory's port: LOAD reads bytes into the buffer, STORE writes elements as int8.
//
// A word of the memory lies in banks of UNIT bytes with an address each, and words are turned by the sum of their
// index's digits, so that short pieces of different words, as a token has in the tiles of a cache, are mostly in
// different banks: STORE writes the next units in one cycle up to the first one whose bank is taken.
module copy_unit #(
    parameter int WORD_BYTES = 16,
    parameter int MEMORY_LATENCY = 20,
    parameter int UNIT = 4,
    parameter int BANKS = WORD_BYTES / UNIT > 0 ? WORD_BYTES / UNIT : 1
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic                    start_load,
    input  logic                    start_store,
    input  logic [WORD_BITS-1:0]    word,
    output logic                    done,
    output logic                    reading,       // LOAD
    output logic [19:0]             memory_addr,
    output logic                    comes,         // a word that was read, and where it goes
    output logic [15:0]             write_addr,
    output logic [15:0]             write_count,
    output logic                    widens,
    output logic [BANKS-1:0]        storing,       // STORE, a unit each
    output logic [BANKS-1:0][15:0]  read_addr,
    output logic [15:0]             read_pitch,
    input  logic [16*UNIT*BANKS-1:0] read_data,
    output logic [BANKS-1:0][19:0]  store_addr,
    output logic [BANKS-1:0][7:0]   store_count,
    output logic [8*UNIT*BANKS-1:0] store_data
);
    localparam int BANK_BITS = BANKS > 1 ? $clog2(BANKS) : 1;

    load_t  given_load, load;
    store_t given_store, kept_store, store;
    assign given_load = word;
    assign given_store = word;

    // LOAD: a word a cycle from the second cycle on
    logic [31:0] left, asked;  // cycles after this one; bytes asked for
    logic        load_busy, loading;
    wire  [31:0] load_cycles = MEMORY_LATENCY + (32'(given_load.num_bytes) + WORD_BYTES - 1) / WORD_BYTES;
    wire  [31:0] load_rest = 32'(load.num_bytes) - asked;
    wire         load_done = start_load ? load_cycles == 1 : load_busy && left == 0;
    assign reading = loading;
    assign widens = load.widens;
    assign memory_addr = load.in_addr + asked[19:0];
    delay_line #(.WIDTH(33), .CYCLES(MEMORY_LATENCY - 1)) way (
        .clk, .rst,
        .in ({reading, 16'(load.out_addr + (load.widens ? asked[15:0] << 1 : asked[15:0])), load_rest > WORD_BYTES ? 16'(WORD_BYTES) : load_rest[15:0]}),
        .out({comes, write_addr, write_count})
    );

    // STORE: from its first cycle on, unit by unit: unit `at` bytes into the chunk of counters (i2, i1, i0)
    logic        store_busy, store_done, stops;
    logic [7:0]  at, i0, i1, i2, next_at, next0, next1, next2;
    logic [BANKS-1:0] used;
    logic [BANK_BITS-1:0] bank;
    wire         stores = start_store || store_busy;
    assign store = start_store ? given_store : kept_store;
    assign read_pitch = store.element_pitch;

    function automatic logic [BANK_BITS-1:0] bank_of(input logic [19:0] address);
        logic [31:0] sum, rest;
        sum = 32'(address) % WORD_BYTES / UNIT;
        rest = 32'(address) / WORD_BYTES;
        for (int digit = 0; digit < 20; digit = digit + 1) begin
            sum = sum + (BANKS > 1 ? rest % BANKS : 0);
            rest = rest / BANKS;
        end
        bank_of = BANK_BITS'(sum % BANKS);
    endfunction

    always_comb begin
        {next_at, next0, next1, next2} = start_store ? '0 : {at, i0, i1, i2};
        {used, storing, read_addr, store_addr, store_count} = '0;
        bank = '0;
        stops = !stores;
        store_done = 1'b0;
        for (int l = 0; l < BANKS; l = l + 1) begin
            store_addr[l] = store.out_addr + 20'(next0) * store.out_pitch0 + 20'(next1) * store.out_pitch1
                + 20'(next2) * store.out_pitch2 + 20'(next_at);
            read_addr[l] = store.in_addr + 16'(next0) * store.in_pitch0 + 16'(next1) * store.in_pitch1
                + 16'(next2) * store.in_pitch2 + 16'(next_at) * store.element_pitch;
            store_count[l] = store.chunk - next_at > 8'(UNIT) ? 8'(UNIT) : store.chunk - next_at;
            bank = bank_of(store_addr[l]);
            stops = stops || store_done || used[bank];
            if (!stops) begin
                used[bank] = 1'b1;
                storing[l] = 1'b1;
                next_at = next_at + 8'(UNIT);
                if (next_at >= store.chunk) begin
                    next_at = '0;
                    next0 = next0 + 1'b1;
                    if (next0 == store.count0) begin
                        next0 = '0;
                        next1 = next1 + 1'b1;
                        if (next1 == store.count1) begin
                            next1 = '0;
                            next2 = next2 + 1'b1;
                            store_done = next2 == store.count2;
                        end
                    end
                end
            end
        end
    end
    logic signed [15:0] narrow;
    always_comb begin
        store_data = '0;
        narrow = '0;
        for (int b = 0; b < UNIT * BANKS; b = b + 1) begin
            narrow = $signed(read_data[16*b +: 16]) >>> store.shift;
            store_data[8*b +: 8] = narrow > 127 ? 8'h7f : narrow < -128 ? 8'h80 : narrow[7:0];
        end
    end
    assign done = load_done || store_done;

    always_ff @(posedge clk) begin
        if (rst) begin
            load_busy <= 1'b0;
            loading <= 1'b0;
            store_busy <= 1'b0;
            left <= '0;
        end else begin
            if (start_load) begin
                load <= given_load;
                load_busy <= load_cycles != 1;
                left <= load_cycles - 2;
                loading <= 1'b1;
                asked <= '0;
            end else if (load_busy) begin
                left <= left - 1'b1;
                if (left == 0) load_busy <= 1'b0;
            end
            if (loading && !start_load) begin
                asked <= asked + WORD_BYTES;
                if (load_rest <= WORD_BYTES) loading <= 1'b0;
            end
            if (start_store) kept_store <= given_store;
            if (stores) begin
                store_busy <= !store_done;
                {at, i0, i1, i2} <= {next_at, next0, next1, next2};
            end
        end
    end
endmodule
