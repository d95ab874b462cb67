`include "commands.svh"
// One joint of the reduction tree: combines a beat of every child that has one and hands the result on COMBINE
// cycles later, MERGE cycles later for softmax merges.
//
// Its children send at the same time or not at all (`reduction_tree` starts a reduction everywhere at once), so a
// joint stores nothing but what is in its pipeline.
module joint #(
    parameter int ARITY = 2,
    parameter int BYTES = 8,
    parameter int SIDE_BITS = 64,  // what goes beside the data: valid, merges, combine in its highest bits
    parameter int COMBINE = 1,
    parameter int MERGE = 1
) (
    input  logic                                     clk,
    input  logic                                     rst,
    input  logic [ARITY-1:0][SIDE_BITS+8*BYTES-1:0]  in,
    output logic [SIDE_BITS+8*BYTES-1:0]             out
);
    localparam int BITS = SIDE_BITS + 8 * BYTES;
    localparam int VALID = BITS - 1;
    localparam int MERGES = BITS - 2;

    logic [8*BYTES-1:0]   data;
    logic [SIDE_BITS-1:0] side;
    logic [1:0]           how;
    logic [8*BYTES-1:0]   child;
    always_comb begin
        side = '0;
        data = '0;
        how = '0;
        child = '0;
        for (int c = 0; c < ARITY; c = c + 1) begin
            child = in[c][8*BYTES-1:0];
            if (in[c][VALID]) begin
                how = in[c][BITS-3 -: 2];
                if (!side[SIDE_BITS-1]) begin
                    side = in[c][BITS-1 -: SIDE_BITS];
                    data = child;
                end else if (how == COMBINE_SUM32) begin
                    for (int w = 0; w < BYTES / 4; w = w + 1) data[32*w +: 32] = data[32*w +: 32] + child[32*w +: 32];
                end else if (how == COMBINE_SUM16) begin
                    for (int w = 0; w < BYTES / 2; w = w + 1) data[16*w +: 16] = data[16*w +: 16] + child[16*w +: 16];
                end else if (how == COMBINE_MAX32) begin
                    for (int w = 0; w < BYTES / 4; w = w + 1)
                        if ($signed(child[32*w +: 32]) > $signed(data[32*w +: 32])) data[32*w +: 32] = child[32*w +: 32];
                end else begin
                    for (int w = 0; w < BYTES / 8; w = w + 1)
                        if ($signed(child[64*w +: 32]) > $signed(data[64*w +: 32])
                            || (child[64*w +: 32] == data[64*w +: 32] && child[64*w+32 +: 32] < data[64*w+32 +: 32]))
                            data[64*w +: 64] = child[64*w +: 64];
                end
            end
        end
    end

    wire [BITS-1:0] combined = {side, data};
    logic [BITS-1:0] plain, merged;
    delay_line #(.WIDTH(BITS), .CYCLES(COMBINE)) plain_line (
        .clk, .rst, .in(combined[MERGES] ? '0 : combined), .out(plain)
    );
    delay_line #(.WIDTH(BITS), .CYCLES(MERGE)) merge_line (
        .clk, .rst, .in(combined[MERGES] ? combined : '0), .out(merged)
    );
    assign out = plain | merged;

`ifndef SYNTHESIS
    always_ff @(posedge clk)
        if (!rst) assert (!(plain[VALID] && merged[VALID])) else $error("two beats leave a joint in one cycle");
`endif
endmodule
