// A k-ary reduction tree over LEAVES leaves, LEVELS levels deep; every leaf is at the same depth.
//
// A leaf presents the reduction at the head of its list (`order` says which). When all leaves below a joint present
// the same one, that is known at the joint in the same cycle; at the level where the reduction ends it starts, at all
// its leaves at once, unless a joint on the way would have two beats to send in one cycle (behind a softmax merge).
// Node (l, j) is at level l, the leaves being level 0. Node (l, j)'s link to level l + 1 takes byte l of LATENCIES.
module reduction_tree #(
    parameter int LEAVES = 4,
    parameter int ARITY = 2,
    parameter int LEVELS = 2,
    parameter logic [63:0] LATENCIES = 64'h0101,
    parameter int COMBINE = 1,
    parameter int MERGE = 1,
    parameter int BYTES = 8,
    parameter int SIDE_BITS = 64,
    parameter int LEVELS_AT = 0    // where in what goes beside a beat's data the four bits of its level are
) (
    input  logic                                                  clk,
    input  logic                                                  rst,
    input  logic [31:0]                                           now,
    input  logic [LEAVES-1:0]                                     present,
    input  logic [LEAVES-1:0][15:0]                               order,
    input  logic [LEAVES-1:0][3:0]                                ends_at,  // level of the joint with the result
    input  logic [LEAVES-1:0]                                     merges,
    input  logic [LEAVES-1:0][15:0]                               beats,
    output logic [LEAVES-1:0]                                     start,
    input  logic [LEAVES-1:0][SIDE_BITS+8*BYTES-1:0]              sent,     // a leaf's beats, from its start on
    output logic [LEVELS:1][LEAVES-1:0][SIDE_BITS+8*BYTES-1:0]    results   // of joint (l, j), if they end there
);
    localparam int BITS = SIDE_BITS + 8 * BYTES;

    function automatic integer nodes_at(input integer level);
        integer below;
        nodes_at = LEAVES;
        for (below = 0; below < level; below = below + 1) nodes_at = (nodes_at + ARITY - 1) / ARITY;
    endfunction
    function automatic integer hops(input integer level, input integer combine);  // from a leaf to what leaves `level`
        integer below;
        hops = 0;
        for (below = 0; below < level; below = below + 1) hops = hops + 32'(LATENCIES[8*below +: 8]) + combine;
    endfunction

    logic [LEVELS:0][LEAVES-1:0]           all_present, starts, starts_here;
    logic [LEVELS:0][LEAVES-1:0][15:0]     which, its_beats;
    logic [LEVELS:0][LEAVES-1:0][3:0]      its_end;
    logic [LEVELS:0][LEAVES-1:0]           its_merge;
    logic [LEVELS:0][LEAVES-1:0][BITS-1:0] leaving;

    assign all_present[0] = present;
    assign which[0] = order;
    assign its_end[0] = ends_at;
    assign its_merge[0] = merges;
    assign its_beats[0] = beats;
    assign leaving[0] = sent;
    assign starts_here[0] = '0;
    assign start = starts[0];

    genvar l, j, c;
    generate
        for (l = 1; l <= LEVELS; l = l + 1) begin : g_level
            localparam int NODES = nodes_at(l);
            localparam int BELOW = nodes_at(l - 1);
            for (j = 0; j < LEAVES; j = j + 1) begin : g_node
                if (j >= NODES) begin : g_none
                    assign all_present[l][j] = 1'b0;
                    assign which[l][j] = '0;
                    assign its_end[l][j] = '0;
                    assign its_merge[l][j] = 1'b0;
                    assign its_beats[l][j] = '0;
                    assign leaving[l][j] = '0;
                    assign starts_here[l][j] = 1'b0;
                    assign results[l][j] = '0;
                end else begin : g_joint
                    localparam int CHILDREN = BELOW - j * ARITY < ARITY ? BELOW - j * ARITY : ARITY;

                    // Who presents what: agreed on, and nothing in the way of what will leave here.
                    logic [31:0] free_at;  // of what leaves here
                    wire  [31:0] leaves_at = now + (its_merge[l-1][j*ARITY] ? hops(l, MERGE) : hops(l, COMBINE));
                    wire  [31:0] until_free = leaves_at - free_at;
                    logic        agreed;
                    always_comb begin
                        agreed = 1'b1;
                        for (int i = 0; i < CHILDREN; i = i + 1)
                            agreed = agreed && all_present[l-1][j*ARITY+i]
                                && which[l-1][j*ARITY+i] == which[l-1][j*ARITY];
                    end
                    assign all_present[l][j] = agreed && !until_free[31];
                    assign which[l][j] = which[l-1][j*ARITY];
                    assign its_end[l][j] = its_end[l-1][j*ARITY];
                    assign its_merge[l][j] = its_merge[l-1][j*ARITY];
                    assign its_beats[l][j] = its_beats[l-1][j*ARITY];
                    assign starts_here[l][j] = all_present[l][j] && its_end[l][j] == 4'(l);
                    always_ff @(posedge clk)
                        if (rst) free_at <= '0;
                        else if (starts[l][j]) free_at <= leaves_at + {16'b0, its_beats[l][j]};

                    // The data.
                    logic [ARITY-1:0][BITS-1:0] arriving;
                    for (c = 0; c < ARITY; c = c + 1) begin : g_child
                        if (c < CHILDREN) begin : g_link
                            delay_line #(.WIDTH(BITS), .CYCLES(32'(LATENCIES[8*(l-1) +: 8]))) link (
                                .clk, .rst,
                                .in(goes_on(leaving[l-1][j*ARITY+c], 4'(l - 1))),
                                .out(arriving[c])
                            );
                        end else begin : g_no_child
                            assign arriving[c] = '0;
                        end
                    end
                    joint #(.ARITY(ARITY), .BYTES(BYTES), .SIDE_BITS(SIDE_BITS), .COMBINE(COMBINE), .MERGE(MERGE)) joint (
                        .clk, .rst, .in(arriving), .out(leaving[l][j])
                    );
                    assign results[l][j] = leaving[l][j][8*BYTES+LEVELS_AT +: 4] == 4'(l) ? leaving[l][j] : '0;
                end
            end
        end
        for (l = 0; l <= LEVELS; l = l + 1) begin : g_down
            for (j = 0; j < LEAVES; j = j + 1) begin : g_start
                if (l == LEVELS) begin : g_last
                    assign starts[l][j] = starts_here[l][j];
                end else begin : g_inner
                    assign starts[l][j] = starts_here[l][j] || starts[l+1][j/ARITY];
                end
            end
        end
    endgenerate

    // What a node sends upwards: nothing of what ends there.
    function automatic logic [BITS-1:0] goes_on(input logic [BITS-1:0] beat, input logic [3:0] level);
        goes_on = beat[8*BYTES+LEVELS_AT +: 4] == level ? '0 : beat;
    endfunction
endmodule
